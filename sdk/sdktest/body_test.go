package sdktest

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

type bodyFunc func(ctx context.Context) (*sdk.Verdict, error)

func (f bodyFunc) Filter(ctx context.Context, _ *mail.Message) (*sdk.Verdict, error) { return f(ctx) }

func write(text string) bodyFunc {
	return func(ctx context.Context) (*sdk.Verdict, error) {
		b, err := sdk.NewBody(ctx)
		if err != nil {
			return nil, err
		}
		v := sdk.Continue().ReplaceBody(b) // may be written to until the call returns
		_, err = io.WriteString(b, text)
		return v, err
	}
}

func TestNewBody(t *testing.T) {
	m := &mail.Message{Body: mail.InlineBody([]byte("old\r\n"))}
	man := sdk.Manifest{Name: "x", May: sdk.MayReplaceBody}
	large := strings.Repeat("new\r\n", 100_000)
	v, err := Filter(t, write(large), man, m)
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := Body(t, v); !ok || string(b) != large {
		t.Errorf("%d bytes", len(b))
	}
	if _, ok := Body(t, sdk.Continue()); ok {
		t.Error("a verdict without a new body has one")
	}
	rec := &recorder{TB: t}
	if _, err := Filter(rec, write("a\nb"), man, m); err != nil || !strings.Contains(strings.Join(rec.said, ""), "bare LF") {
		t.Error(err, rec.said)
	}
	if _, err := Filter(t, write("x"), sdk.Manifest{Name: "x"}, m); err == nil || !strings.Contains(err.Error(), "MayReplaceBody") {
		t.Error(err)
	}
	var late *sdk.Body
	twice := bodyFunc(func(ctx context.Context) (v *sdk.Verdict, err error) {
		if late, err = sdk.NewBody(ctx); err == nil {
			_, err = sdk.NewBody(ctx)
		}
		return nil, err
	})
	if _, err := Filter(t, twice, man, m); err == nil || !strings.Contains(err.Error(), "one new body") {
		t.Error(err)
	}
	if _, err := late.Write([]byte("x")); err == nil {
		t.Error("written to after the call")
	}
	if _, err := sdk.NewBody(t.Context()); err == nil {
		t.Error("made outside of a call")
	}
}

type gateFunc func() (*sdk.Verdict, error)

func (f gateFunc) Gate(context.Context, *sdk.Attempt) (*sdk.Verdict, error) { return f() }

func TestGateComplains(t *testing.T) {
	man := sdk.Manifest{Name: "x", Stages: sdk.AtRcpt, May: sdk.MayReject}
	for name, tt := range map[string]struct {
		v     *sdk.Verdict
		stage sdk.Stage
		want  string
	}{
		"fine":    {sdk.Continue().Note("a", "b"), sdk.AtRcpt, ""},
		"stage":   {sdk.Continue(), sdk.AtMail, "does not ask for MAIL"},
		"edit":    {sdk.Continue().AddHeader("X", "y"), sdk.AtRcpt, "no edits"},
		"discard": {sdk.Discard("x"), sdk.AtRcpt, "cannot discard"},
		"nothing": {nil, sdk.AtRcpt, "neither a verdict nor an error"},
	} {
		rec := &recorder{TB: t}
		Gate(rec, gateFunc(func() (*sdk.Verdict, error) { return tt.v, nil }), man, &sdk.Attempt{Stage: tt.stage})
		if said := strings.Join(rec.said, "; "); (said == "") != (tt.want == "") || !strings.Contains(said, tt.want) {
			t.Errorf("%s: said %q", name, said)
		}
	}
}
