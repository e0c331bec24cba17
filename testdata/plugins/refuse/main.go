// Command refuse is a small plugin: it refuses mail whose Subject has the word "refuse",
// for all recipients, or with "refuse one" for the first one only.
package main

import (
	"context"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

type plugin struct{}

func (plugin) Filter(_ context.Context, m *mail.Message) (*sdk.Verdict, error) {
	status := mail.Permanent(550, 7, 1, "Refused by a plugin")
	switch subject := m.Header.Get("Subject"); {
	case strings.Contains(subject, "refuse one") && len(m.Envelope.Recipients) > 1:
		return sdk.Continue().For(0, sdk.Outcome{Action: sdk.ActionReject, Status: status}), nil
	case strings.Contains(subject, "refuse"):
		return sdk.Reject(status), nil
	}
	return sdk.Continue(), nil
}

func main() {
	sdk.Serve(plugin{}, sdk.Manifest{Name: "refuse", Version: "1.0", May: sdk.MayReject})
}
