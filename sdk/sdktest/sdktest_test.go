package sdktest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// recorder takes the complaints of the checks.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper()                      {}
func (r *recorder) Error(a ...any)               { r.said = append(r.said, fmt.Sprint(a...)) }
func (r *recorder) Errorf(f string, args ...any) { r.said = append(r.said, fmt.Sprintf(f, args...)) }

type filterFunc func(m *mail.Message) (*sdk.Verdict, error)

func (f filterFunc) Filter(_ context.Context, m *mail.Message) (*sdk.Verdict, error) { return f(m) }

func TestFilterComplains(t *testing.T) {
	man := sdk.Manifest{Name: "x", Needs: sdk.NeedHeader, May: sdk.MayEditHeader}
	for name, tt := range map[string]struct {
		f    filterFunc
		want string // "" for no complaint
	}{
		"fine":         {func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue().AddHeader("X", "y"), nil }, ""},
		"beyond":       {func(*mail.Message) (*sdk.Verdict, error) { return sdk.Discard("x"), nil }, "does not declare the right"},
		"injection":    {func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue().AddHeader("X", "y\r\nZ: z"), nil }, "not folding"},
		"nothing":      {func(*mail.Message) (*sdk.Verdict, error) { return nil, nil }, "neither a verdict nor an error"},
		"writes to it": {func(m *mail.Message) (*sdk.Verdict, error) { m.Header.Block()[0] = 'x'; return sdk.Continue(), nil }, "changed the message"},
		"sees a body": {func(m *mail.Message) (*sdk.Verdict, error) {
			return sdk.Continue().Note("size", fmt.Sprint(m.Body.Size)).For(int(m.Body.Size), sdk.Outcome{}), nil
		}, ""},
	} {
		r := &recorder{TB: t}
		m := &mail.Message{
			Envelope: mail.Envelope{Recipients: make([]mail.Recipient, 1)},
			Header:   mail.NewHeader([]byte("Subject: x\r\n\r\n")),
			Body:     mail.InlineBody([]byte("body")),
		}
		Filter(r, tt.f, man, m)
		said := strings.Join(r.said, "; ")
		if (tt.want == "") != (said == "") || !strings.Contains(said, tt.want) {
			t.Errorf("%s: complaints are %q, want %q", name, said, tt.want)
		}
	}
}
