package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestDeliver(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	r := newRig(t, nil, nil)
	sts := r.Attempt(t.Context(), &Job{Route: hops(t, "smtp://"+sink.Addr()), Envelope: envelope("a@example.net", "b@example.net", "c@example.net"),
		Recipients: []int{0, 2}, Header: mail.NewHeader([]byte(testHeader)), Body: mail.InlineBody([]byte("hello\r\n.dot\r\n"))})
	for _, s := range sts {
		if s.Code != 250 || s.Text != "Ok: taken" || s.Remote != "127.0.0.1" {
			t.Errorf("%+v", s)
		}
	}
	if len(sts) != 2 {
		t.Fatal(sts)
	}
	m := sink.Messages()
	if len(m) != 1 || m[0].From != "sender@example.org" || strings.Join(m[0].To, " ") != "a@example.net c@example.net" {
		t.Fatalf("%+v", m)
	}
	if m[0].Helo != "gw.example.org" || string(m[0].Raw) != testHeader+"hello\r\n..dot\r\n.\r\n" {
		t.Errorf("helo %s raw %q", m[0].Helo, m[0].Raw)
	}
}

// TestPipelined: MAIL, RCPT and DATA arrive in one write.
func TestPipelined(t *testing.T) {
	got := make(chan string, 1)
	addr := smtptest.Serve(t, func(c net.Conn) {
		b := make([]byte, 65536)
		fmt.Fprint(c, "220 hi\r\n")
		c.Read(b)
		fmt.Fprint(c, "250-x\r\n250 PIPELINING\r\n")
		n, _ := c.Read(b)
		got <- string(b[:n])
	})
	r := newRig(t, nil, func(o *Options) { o.Timeouts.Rcpt = time.Second })
	r.send(hops(t, "smtp://"+addr), envelope("a@example.net", "b@example.net"))
	if want := "MAIL FROM:<sender@example.org>\r\nRCPT TO:<a@example.net>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"; <-got != want {
		t.Error("not in one write")
	}
}

// TestN13MixedRecipients: every recipient gets its own answer, in lock-step as pipelined,
// with SMTP as with LMTP.
func TestN13MixedRecipients(t *testing.T) {
	for _, c := range []struct {
		name string
		lmtp bool
		ext  []string
	}{{"pipelined", false, nil}, {"lock-step", false, []string{"SIZE"}}, {"lmtp", true, nil}} {
		t.Run(c.name, func(t *testing.T) {
			sink := smtptest.New(t, smtptest.Options{LMTP: c.lmtp, Extensions: c.ext})
			sink.On("RCPT", "", "450 4.2.0 later", "550-5.1.1 no\r\n550 5.1.1 such user", "")
			scheme := "smtp://"
			if c.lmtp {
				scheme = "lmtp://"
				sink.On("DOT", "", "452 4.2.2 full")
			}
			res := newRig(t, nil, nil).send(hops(t, scheme+sink.Addr()), envelope("a@x.test", "b@x.test", "c@x.test", "d@x.test"))
			want(t, res[0], 250, "2.0.0")
			want(t, res[1], 450, "4.2.0")
			want(t, res[2], 550, "5.1.1")
			if res[2].Text != "no such user" || res[2].Remote != "127.0.0.1" {
				t.Errorf("%+v", res[2])
			}
			if c.lmtp {
				want(t, res[3], 452, "4.2.2")
			} else {
				want(t, res[3], 250, "2.0.0")
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, verb, reply string
		code              int
		enhanced          string
	}{
		{"MAIL for good", "MAIL", "550 5.7.1 go away", 550, "5.7.1"},
		{"MAIL for now", "MAIL", "451 later", 451, "4.0.0"},
		{"RCPT", "RCPT", "553 5.1.3 bad", 553, "5.1.3"},
		{"RCPT too many", "RCPT", "552 too many", 451, "4.5.3"},
		{"RCPT mailbox full", "RCPT", "552 5.2.2 full", 552, "5.2.2"},
		{"DATA", "DATA", "554 5.5.0 no", 554, "5.5.0"},
		{"dot for good", "DOT", "554 5.7.0 spam", 554, "5.7.0"},
		{"dot for now", "DOT", "450 4.7.0 wait", 450, "4.7.0"},
		{"enhanced code of another class", "DOT", "550 4.7.0 what", 550, "5.0.0"},
	} {
		for _, ext := range [][]string{nil, {"SIZE"}} {
			t.Run(c.name, func(t *testing.T) {
				sink := smtptest.New(t, smtptest.Options{Extensions: ext})
				sink.On(c.verb, c.reply)
				r := newRig(t, nil, nil)
				want(t, r.one(hops(t, "smtp://"+sink.Addr())), c.code, c.enhanced)
				if len(sink.Messages()) != 0 {
					t.Error("delivered")
				}
				if lockStep := ext != nil; lockStep && (c.verb == "MAIL" || c.verb == "RCPT") && strings.Contains(verbs(sink), "DATA") {
					t.Errorf("DATA for nobody: %s", verbs(sink))
				}
				// N-22: the connection goes on, with RSET before the next transaction.
				want(t, r.one(hops(t, "smtp://"+sink.Addr())), 250, "2.0.0")
				if sink.Connections() != 1 || strings.Count(verbs(sink), "RSET") != 1 {
					t.Errorf("%d connections, %s", sink.Connections(), verbs(sink))
				}
			})
		}
	}
}

// TestN22NoBleed: recipients of a refused message are not in the next one.
func TestN22NoBleed(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	sink.On("DATA", "451 4.3.0 not now")
	r := newRig(t, nil, nil)
	to := hops(t, "smtp://"+sink.Addr())
	want(t, r.send(to, envelope("secret@x.test"))[0], 451, "4.3.0")
	want(t, r.send(to, envelope("other@x.test"))[0], 250, "2.0.0")
	want(t, r.send(to, envelope("third@x.test"))[0], 250, "2.0.0")
	m := sink.Messages()
	if len(m) != 2 || strings.Join(m[0].To, " ") != "other@x.test" || sink.Connections() != 1 {
		t.Errorf("%+v", m)
	}
	if got := verbs(sink); got != "EHLO MAIL RCPT DATA RSET MAIL RCPT DATA MAIL RCPT DATA" {
		t.Error(got) // no RSET without need
	}
}

// TestA15QuotedLocalParts and A-16: an address stays one address on the wire.
func TestA15QuotedLocalParts(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	r := newRig(t, nil, nil)
	for _, a := range []string{`"a b"@x.test`, `"a\"b"@x.test`, `"a@b"@x.test`, `"a>b"@x.test`, `"t@e> ORCPT=admin@evil"@d.test`, `"\\"@x.test`, `=?utf-8?q?=61=40evil?=@gw.test`} {
		e := envelope(a)
		e.ReversePath = mail.MustPath(a)
		want(t, r.send(hops(t, "smtp://"+sink.Addr()), e)[0], 250, "2.0.0")
		m := sink.Messages()
		last := m[len(m)-1]
		if last.To[0] != a || last.From != a || last.Rcpt[0] != "RCPT TO:<"+a+">" {
			t.Errorf("%s: %+v", a, last)
		}
	}
}

// TestL08DSNParameters, A-17: what the client said goes on to a hop that speaks DSN, as
// xtext, and only there.
func TestL08DSNParameters(t *testing.T) {
	e := envelope("a@x.test", "b@x.test", "c@x.test")
	e.Return, e.EnvelopeID = mail.ReturnHeaders, "q+1=\r\nQUIT"
	e.Recipients[0].Notify, e.Recipients[0].ORCPT = mail.NotifySuccess|mail.NotifyDelay, "rfc822;a+b@x\r\nRSET"
	e.Recipients[1].Notify = mail.NotifyNever
	e.Recipients[2].ORCPT = "utf-8;ü\\@x"
	sink := smtptest.New(t, smtptest.Options{})
	r := newRig(t, nil, nil)
	res := r.send(hops(t, "smtp://"+sink.Addr()), e)
	m := sink.Messages()[0]
	if !res[0].DSN || !strings.HasSuffix(m.Mail, " RET=HDRS ENVID=q+2B1+3D+0D+0AQUIT") {
		t.Errorf("%+v %s", res[0], m.Mail)
	}
	for i, w := range []string{
		"RCPT TO:<a@x.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x+0D+0ARSET", "RCPT TO:<b@x.test> NOTIFY=NEVER",
		`RCPT TO:<c@x.test> ORCPT=utf-8;\x{FC}\x{5C}@x`,
	} {
		if m.Rcpt[i] != w {
			t.Errorf("%q, want %q", m.Rcpt[i], w)
		}
	}
	plain := smtptest.New(t, smtptest.Options{Extensions: []string{"PIPELINING"}})
	res = r.send(hops(t, "smtp://"+plain.Addr()), e)
	m = plain.Messages()[0]
	if res[0].DSN || m.Mail != "MAIL FROM:<sender@example.org>" || m.Rcpt[0] != "RCPT TO:<a@x.test>" {
		t.Errorf("%+v %+v", res[0], m)
	}
}

// TestA22NoSMTPUTF8: never mojibake.
func TestA22NoSMTPUTF8(t *testing.T) {
	old := smtptest.New(t, smtptest.Options{Extensions: []string{"PIPELINING", "8BITMIME"}})
	sink := smtptest.New(t, smtptest.Options{})
	r := newRig(t, nil, nil)
	e := envelope("ü@x.test", "b@x.test")
	res := r.send(hops(t, "smtp://"+old.Addr()), e)
	want(t, res[0], 553, "5.6.7")
	want(t, res[1], 250, "2.0.0")
	if m := old.Messages(); len(m) != 1 || len(m[0].To) != 1 || strings.Contains(m[0].Mail, "UTF8") {
		t.Errorf("%+v", m)
	}
	res = r.send(hops(t, "smtp://"+sink.Addr()), e)
	want(t, res[0], 250, "2.0.0")
	if m := sink.Messages(); m[0].To[0] != "ü@x.test" || !strings.HasSuffix(m[0].Mail, " SMTPUTF8") {
		t.Errorf("%+v", m)
	}
	e = envelope("b@x.test")
	e.ReversePath = mail.MustPath("ü@example.org")
	want(t, r.send(hops(t, "smtp://"+old.Addr()), e)[0], 553, "5.6.7")
	e = envelope("b@x.test")
	e.UTF8 = true
	want(t, r.send(hops(t, "smtp://"+old.Addr()), e)[0], 250, "2.0.0") // ASCII after all
	job := &Job{Route: hops(t, "smtp://"+old.Addr()), Envelope: e, Recipients: []int{0}, Header: mail.NewHeader([]byte("Subject: ü\r\n\r\n"))}
	want(t, r.Attempt(t.Context(), job)[0], 553, "5.6.7")
}

// TestH10EightBit: BODY where it is known, bit 8 untouched everywhere.
func TestH10EightBit(t *testing.T) {
	e := envelope("a@x.test")
	e.BodyType = mail.Body8BitMIME
	for _, ext := range []string{"8BITMIME", "HELP"} {
		sink := smtptest.New(t, smtptest.Options{Extensions: []string{ext}})
		res := newRig(t, nil, nil).Attempt(t.Context(), &Job{Route: hops(t, "smtp://"+sink.Addr()), Envelope: e, Recipients: []int{0},
			Header: mail.NewHeader([]byte("A: \xff\r\n\r\n")), Body: mail.InlineBody([]byte("caf\xe9 \xff\x80\r\n"))})
		want(t, res[0], 250, "2.0.0")
		m := sink.Messages()[0]
		if string(m.Data) != "A: \xff\r\n\r\ncaf\xe9 \xff\x80\r\n" || strings.Contains(m.Mail, "BODY=8BITMIME") != (ext == "8BITMIME") {
			t.Errorf("%s: %q %q", ext, m.Mail, m.Data)
		}
	}
}

func TestSize(t *testing.T) {
	size := len(testHeader) + len("hello\r\n")
	for _, limit := range []int{size - 1, size, size + 1} {
		sink := smtptest.New(t, smtptest.Options{Extensions: []string{fmt.Sprintf("SIZE %d", limit)}})
		res := newRig(t, nil, nil).one(hops(t, "smtp://"+sink.Addr()))
		if limit < size {
			want(t, res, 552, "5.3.4")
			if v := verbs(sink); v != "EHLO" {
				t.Error(v)
			}
			continue
		}
		want(t, res, 250, "2.0.0")
		if m := sink.Messages()[0]; !strings.HasSuffix(m.Mail, fmt.Sprintf(" SIZE=%d", size)) {
			t.Error(m.Mail)
		}
	}
}

// TestT16RequireTLS: a hop that lacks it never sees the message.
func TestT16RequireTLS(t *testing.T) {
	ca := smtptest.NewCA(t)
	e := envelope("a@x.test")
	e.RequireTLS = true
	for _, c := range []struct {
		name string
		opts smtptest.Options
		code int
	}{
		{"no TLS", smtptest.Options{Extensions: []string{"REQUIRETLS"}}, 550},
		{"no REQUIRETLS", smtptest.Options{TLS: ca.Config(t, "127.0.0.1")}, 550},
		{"wrong certificate", smtptest.Options{TLS: ca.Config(t, "x.test"), Extensions: []string{"REQUIRETLS"}}, 451},
		{"good", smtptest.Options{TLS: ca.Config(t, "127.0.0.1"), Extensions: []string{"REQUIRETLS"}}, 250},
	} {
		sink := smtptest.New(t, c.opts)
		res := newRig(t, nil, func(o *Options) { o.RootCAs = ca.Pool }).send(hops(t, "smtp://"+sink.Addr()), e)[0]
		if res.Code != c.code || c.code == 550 && res.EnhancedString() != "5.7.30" {
			t.Errorf("%s: %v", c.name, res)
		}
		if m := sink.Messages(); len(m) > 0 && (!m[0].TLS || !strings.HasSuffix(m[0].Mail, " REQUIRETLS")) || (len(m) > 0) != (c.code == 250) {
			t.Errorf("%s: %+v", c.name, m)
		}
	}
}

// TestManyRecipients: more than a server must take go in several transactions of one
// connection.
func TestManyRecipients(t *testing.T) {
	for _, n := range []int{99, 100, 101, 250} {
		sink := smtptest.New(t, smtptest.Options{})
		var to []string
		for i := range n {
			to = append(to, fmt.Sprintf("r%d@x.test", i))
		}
		res := newRig(t, nil, nil).send(hops(t, "smtp://"+sink.Addr()), envelope(to...))
		got := 0
		for _, m := range sink.Messages() {
			got += len(m.To)
		}
		if got != n || len(sink.Messages()) != (n+99)/100 || sink.Connections() != 1 {
			t.Errorf("%d: %d recipients in %d messages", n, got, len(sink.Messages()))
		}
		for i := range res {
			want(t, res[i], 250, "2.0.0")
		}
	}
}

func TestUnixLMTP(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lmtp")
	sink := smtptest.New(t, smtptest.Options{LMTP: true, Socket: path})
	r := newRig(t, nil, nil)
	res := r.send(hops(t, "lmtp://unix:"+path), envelope("a@x.test", "b@x.test"))
	want(t, res[0], 250, "2.0.0")
	want(t, res[1], 250, "2.0.0")
	if m := sink.Messages(); len(m) != 2 || m[1].To[0] != "b@x.test" || m[0].Helo != "gw.example.org" {
		t.Errorf("%+v", m)
	}
}

// TestBodyUnreadable: a stored body that is short or gone is never sent as if it were whole,
// and the mail is not lost for it.
func TestBodyUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(path, []byte("xxhello\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sink := smtptest.New(t, smtptest.Options{})
	r := newRig(t, nil, nil)
	for _, c := range []struct {
		body mail.Body
		code int
	}{
		{mail.Body{Path: path, Offset: 2, Size: 7}, 250},
		{mail.Body{Path: path, Offset: 2, Size: 8}, 451},
		{mail.Body{Path: path + "x", Size: 8}, 451},
	} {
		e := envelope("a@x.test", "b@x.test")
		res := r.Attempt(t.Context(), &Job{Route: hops(t, "smtp://"+sink.Addr()), Envelope: e, Recipients: all(e), Header: mail.NewHeader([]byte(testHeader)), Body: c.body})
		if res[0].Code != c.code || res[1].Code != c.code {
			t.Errorf("%+v: %v", c.body, res)
		}
	}
	if m := sink.Messages(); len(m) != 1 || string(m[0].Data) != testHeader+"hello\r\n" {
		t.Errorf("%+v", m)
	}
}

func TestBeforeDot(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	e := envelope("a@x.test")
	job := &Job{Route: hops(t, "smtp://"+sink.Addr()), Envelope: e, Recipients: []int{0}, Header: mail.NewHeader([]byte(testHeader)),
		BeforeDot: func(context.Context) error { return errors.New("lease lost") }}
	r := newRig(t, nil, nil)
	want(t, r.Attempt(t.Context(), job)[0], 451, "4.3.0")
	if len(sink.Messages()) != 0 {
		t.Error("delivered")
	}
}

// TestSessionEndsBetweenTransactions: what was to follow is tried elsewhere.
func TestSessionEndsBetweenTransactions(t *testing.T) {
	first, second := smtptest.New(t, smtptest.Options{}), smtptest.New(t, smtptest.Options{})
	first.On("DOT", "421 4.3.2 shutting down")
	r := newRig(t, nil, func(o *Options) { o.MaxRecipients = 1 })
	res := r.send(hops(t, "smtp://"+first.Addr(), "smtp://"+second.Addr()), envelope("a@x.test", "b@x.test"))
	want(t, res[0], 421, "4.3.2")
	want(t, res[1], 250, "2.0.0")
}
