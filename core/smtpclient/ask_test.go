package smtpclient

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
)

// ask asks about addresses and returns the answers as codes.
func (r *rig) ask(ctx context.Context, to route.Route, addresses ...string) string {
	var rcpts []mail.Path
	for _, a := range addresses {
		rcpts = append(rcpts, mail.MustPath(a))
	}
	var out []string
	for _, s := range r.Ask(ctx, to, rcpts...) {
		out = append(out, fmt.Sprintf("%d", s.Code))
	}
	return strings.Join(out, " ")
}

// TestAsk: the dialogue, inside TLS where it is offered, and no message.
func TestAsk(t *testing.T) {
	ca := smtptest.NewCA(t)
	for name, o := range map[string]smtptest.Options{
		"plain": {}, "tls": {TLS: ca.Config(t, "127.0.0.1")}, "lmtp": {LMTP: true, Socket: filepath.Join(t.TempDir(), "s")},
	} {
		sink := smtptest.New(t, o)
		to, hello, tls := "smtp://"+sink.Addr(), "EHLO", ""
		switch name {
		case "tls":
			tls = "STARTTLS EHLO "
		case "lmtp":
			to, hello = "lmtp://unix:"+sink.Addr(), "LHLO"
		}
		r := newRig(t, nil, nil)
		if got := r.ask(t.Context(), hops(t, to), "a@example.net", "b@example.net"); got != "250 250" {
			t.Errorf("%s: %s", name, got)
		}
		sink.WaitLine(t, "QUIT", 10*time.Second)
		if v := verbs(sink); v != hello+" "+tls+"MAIL RCPT RCPT QUIT" {
			t.Errorf("%s: %s", name, v)
		}
		for _, l := range sink.Lines() {
			if strings.HasPrefix(l.Text, "MAIL") && (l.Text != "MAIL FROM:<>" || l.TLS != (name == "tls")) {
				t.Errorf("%s: %+v", name, l)
			}
		}
	}
}

// TestAskRefused: what is permanent was said to RCPT.
func TestAskRefused(t *testing.T) {
	for _, c := range []struct{ verb, reply, want string }{
		{"RCPT", "550 5.1.1 no", "550 0"}, {"RCPT", "450 4.2.0 later", "450 0"}, {"RCPT", "421 4.3.2 bye", "421 0"},
		{"MAIL", "550 5.7.1 no bounces", "451 0"}, {"MAIL", "450 4.7.1 later", "450 0"}, {"BANNER", "554 5.7.1 go away", "451 0"}, {"BANNER", "421 4.3.2 busy", "421 0"},
		{"RCPT", smtptest.Drop, "451 0"}, {"BANNER", smtptest.Drop, "451 0"}, {"RCPT", "354 go", "451 0"}, {"RCPT", "rubbish", "451 0"},
	} {
		sink := smtptest.New(t, smtptest.Options{})
		sink.Always(c.verb, c.reply)
		r := newRig(t, nil, nil)
		if got := r.ask(t.Context(), hops(t, "smtp://"+sink.Addr()), "a@example.net", "b@example.net"); got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.reply, c.verb, got, c.want)
		}
	}
	r := newRig(t, nil, nil)
	if s := r.Ask(t.Context(), hops(t, "smtp://127.0.0.1:1"), mail.MustPath("a@example.net"))[0]; !s.Temporary() || s.Enhanced[1] != 4 || s.Remote != "" {
		t.Errorf("nobody there: %v", s)
	}
	sink := smtptest.New(t, smtptest.Options{Extensions: []string{"PIPELINING"}})
	if got := r.ask(t.Context(), hops(t, "smtp://"+sink.Addr()), "ä@example.net"); got != "450" {
		t.Errorf("without SMTPUTF8: %s", got)
	}
}

// TestAskFailsOver: the next hop in line is asked when the first is not there, or does not answer in time.
func TestAskFailsOver(t *testing.T) {
	second := smtptest.New(t, smtptest.Options{})
	second.Always("RCPT", "550 5.1.1 no")
	silent := smtptest.New(t, smtptest.Options{})
	silent.Always("BANNER", smtptest.Stall)
	for _, first := range []string{"127.0.0.1:1", silent.Addr()} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		r := newRig(t, nil, nil)
		if got := r.ask(ctx, hops(t, "smtp://"+first, "smtp://"+second.Addr()), "a@example.net"); got != "550" {
			t.Errorf("after %s: %s", first, got)
		}
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got := newRig(t, nil, nil).ask(ctx, hops(t, "smtp://"+silent.Addr()), "a@example.net"); got != "451" {
		t.Errorf("a server that says nothing: %s", got)
	}
}
