package policy

import (
	"context"
	"errors"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

// elsewhere is a server behind us with one recipient.
type elsewhere struct{ asked []mail.Path }

func (e *elsewhere) Recipient(_ context.Context, _ *mail.Client, p mail.Path) mail.Status {
	e.asked = append(e.asked, p)
	switch p.Fold().Local {
	case "carol":
		return mail.Status{}
	case "later":
		return mail.Temporary(450, 2, 0, "")
	}
	return mail.Permanent(550, 1, 1, "")
}

// TestBehind: the server behind us is asked about what the directory does not have, at the domain's own name,
// and about nothing else.
func TestBehind(t *testing.T) {
	behind := &elsewhere{}
	r := newRig(t, func(o *Options) {
		o.Callahead, o.Behind = []mail.Domain{mail.MustDomain("gw.example")}, behind
		o.Relay = prefixes("203.0.113.0/24")
	})
	for _, c := range []struct{ client, to, want, asked string }{
		{stranger, "alice@gw.example", "", ""}, // the directory has her
		{stranger, "postmaster@gw.example", "", ""},
		{stranger, "carol@gw.example", "", "carol@gw.example"},
		{stranger, "later@gw.example", "450 4.2.0", "later@gw.example"},
		{stranger, "nobody@gw.example", "550 5.1.1", "nobody@gw.example"},
		{stranger, "carol%ext.example@gw.example", "550 5.7.1", ""},
		{stranger, "x@ext.example", "550 5.7.1", ""},
		{"203.0.113.1", "nobody@gw.example", "550 5.1.1", "nobody@gw.example"},
	} {
		behind.asked = nil
		if got := r.rcpt(t, c.client, "", "", c.to); got != c.want {
			t.Errorf("%s from %s: %q, want %q", c.to, c.client, got, c.want)
		}
		asked := ""
		if len(behind.asked) > 0 {
			asked = behind.asked[0].String()
		}
		if asked != c.asked || len(behind.asked) > 1 {
			t.Errorf("%s: asked about %v, want %q", c.to, behind.asked, c.asked)
		}
	}
	o := r.Policy.Options
	o.Directory, behind.asked = failing{errors.New("disk on fire")}, nil
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Policy = p
	if got := r.rcpt(t, stranger, "", "", "carol@gw.example"); got != "451 4.3.0" || len(behind.asked) > 0 {
		t.Errorf("without a directory: %q, asked about %v", got, behind.asked)
	}
	o.Behind = nil
	if _, err := New(o); err == nil {
		t.Error("domains behind us, and nobody to ask, are accepted")
	}
}
