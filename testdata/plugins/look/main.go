// Command look is a plugin that only looks: it reads every message to its end and has no
// objection. The benchmark measures what a plugin costs with it.
package main

import (
	"context"
	"io"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

type look struct{}

func (look) Filter(_ context.Context, m *mail.Message) (*sdk.Verdict, error) {
	r, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return sdk.Continue(), nil
}

func main() { sdk.Serve(look{}, sdk.Manifest{Name: "look", Version: "1.0", Needs: sdk.NeedBody}) }
