package sdk_test

import (
	"context"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// A whole plugin: it rejects messages without a Date field. In a program of its own, Example
// is called main.
func Example() {
	sdk.Serve(&guard{}, sdk.Manifest{Name: "date-guard", Version: "1.0", Needs: sdk.NeedHeader, May: sdk.MayReject})
}

type guard struct{ cfg settings }

type settings struct {
	// ExemptAuthenticated lets clients through that have logged in. Default: false.
	ExemptAuthenticated bool `toml:"exempt_authenticated"`
}

func (g *guard) Configure(_ context.Context, c sdk.Config) error { return c.Decode(&g.cfg) }

func (g *guard) Filter(_ context.Context, m *mail.Message) (*sdk.Verdict, error) {
	if g.cfg.ExemptAuthenticated && m.Envelope.Client.User != "" || m.Header.Has("Date") {
		return sdk.Continue(), nil
	}
	return sdk.Reject(mail.Permanent(554, 6, 0, "message has no Date field")), nil
}
