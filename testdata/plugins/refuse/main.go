// Command refuse is a small plugin: mail with the Subject "refuse LOCAL" is refused for the
// recipients with that local part, mail with the Subject "refuse" for all.
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
	local, ok := strings.CutPrefix(strings.TrimSpace(m.Header.Get("Subject")), "refuse")
	switch local = strings.TrimSpace(local); {
	case !ok:
		return sdk.Continue(), nil
	case local == "":
		return sdk.Reject(status), nil
	}
	v := sdk.Continue()
	for i, r := range m.Envelope.Recipients {
		if r.Path.Local == local {
			v.For(i, sdk.Outcome{Action: sdk.ActionReject, Status: status})
		}
	}
	return v, nil
}

func main() {
	sdk.Serve(plugin{}, sdk.Manifest{Name: "refuse", Version: "1.0", May: sdk.MayReject})
}
