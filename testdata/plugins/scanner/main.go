// Command scanner is a plugin that reads every message and marks it as scanned, for tests
// of what becomes of mail when it cannot.
package main

import (
	"context"
	"io"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

type scanner struct{}

func (scanner) Filter(_ context.Context, m *mail.Message) (*sdk.Verdict, error) {
	r, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return sdk.Continue().AddHeader("X-Scanned", "yes"), nil
}

func main() {
	sdk.Serve(scanner{}, sdk.Manifest{Name: "scanner", Version: "1.0", Needs: sdk.NeedBody, May: sdk.MayEditHeader, Owns: []string{"X-Scanned"}})
}
