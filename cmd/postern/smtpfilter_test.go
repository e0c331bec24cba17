package main_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// outside is a content filter that a test scripts. It speaks SMTP or LMTP.
type outside struct {
	addr string

	mu   sync.Mutex
	ask  func(h *handed) error
	rcpt func(to string) error
	got  []*handed
	back string // the gateway's reinjection listener

	lmtp   bool
	server *smtp.Server
}

// handed is a message that the filter was given.
type handed struct {
	f    *outside
	From string
	To   []string
	Text string // with the token
}

func newOutside(t testing.TB, lmtp bool) *outside {
	t.Helper()
	f := &outside{addr: "127.0.0.1:0", lmtp: lmtp, ask: func(h *handed) error { return h.return250(h.To, h.Text) }}
	f.serve(t)
	t.Cleanup(f.stop)
	return f
}

// serve starts the filter, at the address that it had if it was stopped.
func (f *outside) serve(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	f.addr, f.server = l.Addr().String(), smtp.NewServer(f)
	f.server.ErrorLog = log.New(io.Discard, "", 0) // of connections that it ends
	f.server.LMTP, f.server.Domain, f.server.MaxMessageBytes, f.server.EnableSMTPUTF8 = f.lmtp, "filter.test", 50<<20, true
	go f.server.Serve(l)
}

// stop closes its connections; nobody is there any more.
func (f *outside) stop() { f.server.Close() }

// script makes ask decide what becomes of messages.
func (f *outside) script(ask func(h *handed) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ask = ask
}

func (f *outside) handed() []*handed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

func (f *outside) NewSession(*smtp.Conn) (smtp.Session, error) { return &outsideSession{f: f}, nil }

type outsideSession struct {
	f *outside
	h *handed
}

func (s *outsideSession) Mail(from string, _ *smtp.MailOptions) error {
	s.h = &handed{f: s.f, From: from}
	return nil
}

func (s *outsideSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.f.mu.Lock()
	rcpt := s.f.rcpt
	s.f.mu.Unlock()
	if rcpt != nil {
		if err := rcpt(to); err != nil {
			return err
		}
	}
	s.h.To = append(s.h.To, to)
	return nil
}

func (s *outsideSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.h.Text = string(b)
	s.f.mu.Lock()
	s.f.got = append(s.f.got, s.h)
	ask := s.f.ask
	s.f.mu.Unlock()
	return ask(s.h)
}

func (s *outsideSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	err := s.Data(r)
	var one *perRecipient
	if !errors.As(err, &one) {
		return err
	}
	for _, to := range s.h.To {
		status.SetStatus(to, one.of[to])
	}
	return nil
}

// perRecipient is an answer over LMTP.
type perRecipient struct{ of map[string]error }

func (*perRecipient) Error() string { return "for each recipient" }

func (s *outsideSession) Reset()        {}
func (s *outsideSession) Logout() error { return nil }

// bring brings a message back and returns the last reply.
func (f *outside) bring(from string, to []string, text string) (int, string) {
	f.mu.Lock()
	addr := f.back
	f.mu.Unlock()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	r := textproto.NewReader(bufio.NewReader(c))
	say := func(line string, want int) (int, string, bool) {
		if line != "" {
			io.WriteString(c, line+"\r\n")
		}
		code, text, err := r.ReadResponse(0)
		if err != nil {
			text = err.Error()
		}
		return code, text, code/100 == want
	}
	lines := []string{"", "EHLO filter.test", "MAIL FROM:<" + from + ">"}
	for _, one := range to {
		lines = append(lines, "RCPT TO:<"+one+">")
	}
	for _, line := range lines {
		if code, text, ok := say(line, 2); !ok {
			return code, text
		}
	}
	if code, text, ok := say("DATA", 3); !ok {
		return code, text
	}
	code, reply, _ := say(strings.ReplaceAll(text, "\r\n.", "\r\n..")+".", 2)
	return code, reply
}

// return250 brings a message back, and is the filter's answer then.
func (h *handed) return250(to []string, text string) error {
	if code, reply := h.f.bring(h.From, to, text); code != 250 {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 5, 0}, Message: "next hop says " + strings.ReplaceAll(reply, "\n", " ")}
	}
	return nil
}

// token is the field with the token.
func (h *handed) token() string {
	field, _, _ := strings.Cut(h.Text, "\r\n")
	return field + "\r\n"
}

func refuse(code int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 7, 1}, Message: text}
}

const withReinjection = "[[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"reinjection\"\n"

// filtering starts a gateway in front of a sink, with a content filter.
func filtering(t testing.TB, f *outside, more string) (*gateway, *smtptest.Sink) {
	t.Helper()
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+withReinjection+smtpfilter(f.addr, more))
	f.bringsTo(g.addr[1])
	return g, sink
}

// bringsTo tells the filter where to bring messages back.
func (f *outside) bringsTo(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.back = addr
}

// smtpfilter lists the plugin, with more keys.
func smtpfilter(addr, more string) string {
	return fmt.Sprintf("[[plugin]]\nname = \"smtpfilter\"\n%s\n[plugin.settings]\naddress = %q\n", more, addr)
}

// handIn sends a message and returns the reply to it.
func (g *gateway) handIn(from string, to []string, text string) (int, string) {
	g.t.Helper()
	c := dial(g.t, g.addr[0])
	defer c.conn.Close()
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<%s>", from)
	for _, one := range to {
		c.cmd(250, "RCPT TO:<%s>", one)
	}
	c.cmd(354, "DATA")
	c.send(text + ".\r\n")
	code, reply, err := c.reply()
	if err != nil {
		return 0, err.Error()
	}
	return code, reply
}

const plainMail = "From: a@example.net\r\nSubject: hello\r\nX-Odd:  kept \r\n\tas it is\r\n\r\nbody\r\n..dot\r\n"

// What the filter changes is what is delivered; what it leaves alone is not touched, and the
// token is seen by nobody else.
func TestSMTPFilterChanges(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	g, sink := filtering(t, f, "")
	f.script(func(h *handed) error {
		text := strings.Replace(h.Text, "Subject: hello", "Subject: ***SPAM*** hello", 1)
		text = "Received: from x by filter.test; Thu, 21 May 2026 05:33:29 -0700\r\n" + strings.Replace(text, "\r\n\r\n", "\r\nX-Spam-Flag: YES\r\nX-Postern-Unscanned: no\r\n\r\n", 1)
		text = strings.Replace(text, "body\r\n", "another body\r\n", 1)
		if code, reply := f.bring("other@example.net", append(h.To, "new@example.org"), text); code != 250 {
			return refuse(451, reply)
		}
		return nil
	})
	code, reply := g.handIn("a@example.net", []string{"bob@example.org"}, plainMail)
	if code != 250 {
		t.Fatal(code, reply)
	}
	m := sink.Wait(t, 1, patience)[0]
	_, rest, _ := strings.Cut(string(m.Data), "\r\nReceived: from client.example.net")
	_, rest, _ = strings.Cut(rest, "\r\nFrom:")
	if want := " a@example.net\r\nSubject: ***SPAM*** hello\r\nX-Odd:  kept \r\n\tas it is\r\nX-Spam-Flag: YES\r\n\r\nanother body\r\n.dot\r\n"; rest != want {
		t.Errorf("delivered was\n%q\nwant\n%q", rest, want)
	}
	if !strings.HasPrefix(string(m.Data), "Received: from x by filter.test;") || strings.Contains(string(m.Data), "Reinject") || m.From != "other@example.net" ||
		!slices.Equal(m.To, []string{"bob@example.org", "new@example.org"}) {
		t.Errorf("from %s to %s:\n%s", m.From, m.To, m.Data)
	}
	// A large message, unchanged, is untouched and not a copy.
	f.script(func(h *handed) error { return h.return250(h.To, h.Text) })
	large := plainMail + strings.Repeat("..dots and 8 bits: \xe4\xf6\xfc\r\n", 100_000)
	if code, reply := g.handIn("a@example.net", []string{"bob@example.org"}, large); code != 250 {
		t.Fatal(code, reply)
	}
	untouched(t, sink.Wait(t, 2, patience)[1].Data, []byte(strings.ReplaceAll(large, "\r\n.", "\r\n")))
	if !strings.Contains(f.handed()[0].Text, "X-Postern-Reinject: ") {
		t.Error("no token")
	}
}

// The filter's last word is the reply to the client, or what becomes of the mail.
func TestSMTPFilterVerdicts(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	f.rcpt = func(to string) error {
		if strings.HasPrefix(to, "nobody") {
			return refuse(550, "no such user there")
		}
		return nil
	}
	g, sink := filtering(t, f, "")
	for _, c := range []struct {
		name  string
		ask   func(h *handed) error
		to    []string
		code  int
		reply string
		sink  int // messages
		held  int // recipients
	}{
		{"refused", func(*handed) error { return refuse(554, "Reject, id=1 - INFECTED: Eicar") }, []string{"bob@example.org"}, 554, "5.7.1 Reject, id=1 - INFECTED: Eicar", 0, 0},
		{"refused after all", func(h *handed) error { h.return250(h.To, h.Text); return refuse(550, "second thoughts") }, []string{"bob@example.org"}, 550, "second thoughts", 0, 0},
		{"for now", func(*handed) error { return refuse(452, "busy") }, []string{"bob@example.org"}, 452, "4.7.1 busy", 0, 0},
		{"a recipient", nil, []string{"bob@example.org", "nobody@example.org"}, 250, "queued", 1, 0},
		{"its only recipient", nil, []string{"nobody@example.org"}, 550, "5.7.1 no such user there", 0, 0},
		{"swallowed", func(*handed) error { return nil }, []string{"bob@example.org"}, 250, "queued", 0, 1},
		{"swallowed for one", func(h *handed) error { return h.return250(h.To[:1], h.Text) }, []string{"bob@example.org", "carol@example.org"}, 250, "queued", 1, 1},
	} {
		f.script(c.ask)
		if c.ask == nil {
			f.script(func(h *handed) error { return h.return250(h.To, h.Text) })
		}
		before, held := len(sink.Messages()), g.held("content filter did not bring it back")
		code, reply := g.handIn("a@example.net", c.to, plainMail)
		if code != c.code || !strings.Contains(reply, c.reply) {
			t.Errorf("%s: %d %s", c.name, code, reply)
		}
		if c.sink > 0 {
			sink.Wait(t, before+c.sink, patience)
		}
		if n := g.held("content filter did not bring it back") - held; n != c.held || len(sink.Messages()) != before+c.sink {
			t.Errorf("%s: %d held, %d delivered", c.name, n, len(sink.Messages())-before)
		}
	}
}

// held counts recipients that are held for a reason.
func (g *gateway) held(reason string) int {
	g.t.Helper()
	n := 0
	for _, q := range g.queue() {
		if q.State == "held" && strings.Contains(q.Reason, reason) {
			n++
		}
	}
	return n
}

// What is swallowed is thrown away, or deferred, where the admin says so.
func TestSMTPFilterSwallowed(t *testing.T) {
	t.Parallel()
	for swallowed, want := range map[string]int{"discard": 250, "tempfail": 451} {
		f := newOutside(t, false)
		sink := smtptest.New(t, smtptest.Options{})
		g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+withReinjection+smtpfilter(f.addr, "")+fmt.Sprintf("swallowed = %q\n", swallowed))
		f.script(func(*handed) error { return nil })
		if code, reply := g.handIn("a@example.net", []string{"bob@example.org"}, plainMail); code != want {
			t.Errorf("%s: %d %s", swallowed, code, reply)
		}
		if q := g.queue(); len(q) != 0 || len(sink.Messages()) != 0 {
			t.Errorf("%s: %+v", swallowed, q)
		}
	}
}

// Over LMTP each recipient has a reply of its own, from the filter and to the client.
func TestSMTPFilterLMTP(t *testing.T) {
	t.Parallel()
	f := newOutside(t, true)
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+withReinjection+"[[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"lmtp\"\n"+
		smtpfilter(f.addr, "")+"protocol = \"lmtp\"\n")
	f.back = g.addr[1]
	f.script(func(h *handed) error {
		if err := h.return250([]string{"bob@example.org"}, h.Text); err != nil {
			return err
		}
		return &perRecipient{map[string]error{"carol@example.org": refuse(550, "not carol"), "dave@example.org": refuse(451, "dave later")}}
	})
	c := dial(t, g.addr[2])
	c.cmd(250, "LHLO client.example.net")
	c.cmd(250, "MAIL FROM:<a@example.net>")
	for _, to := range []string{"bob", "carol", "dave"} {
		c.cmd(250, "RCPT TO:<%s@example.org>", to)
	}
	c.cmd(354, "DATA")
	c.send(plainMail + ".\r\n")
	c.expect(250)
	if text := c.expect(550); !strings.Contains(text, "not carol") {
		t.Error(text)
	}
	if text := c.expect(451); !strings.Contains(text, "dave later") {
		t.Error(text)
	}
	if m := sink.Wait(t, 1, patience); !slices.Equal(m[0].To, []string{"bob@example.org"}) {
		t.Errorf("delivered to %s", m[0].To)
	}
}

// A filter may bring back a message for each recipient. Headers may differ as they like; where
// there are several new bodies, the others are filtered again apart.
func TestSMTPFilterSplits(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	g, sink := filtering(t, f, "")
	f.script(func(h *handed) error {
		for i, to := range h.To {
			text := strings.Replace(h.Text, "\r\n\r\n", "\r\nX-For: "+to+"\r\n\r\n", 1)
			if i > 0 {
				text = strings.Replace(text, "body", "body of "+to, 1)
			}
			if err := h.return250([]string{to}, text); err != nil {
				return err
			}
		}
		return nil
	})
	to := []string{"a@example.org", "b@example.org", "c@example.org"}
	if code, reply := g.handIn("a@example.net", to, plainMail); code != 250 {
		t.Fatal(code, reply)
	}
	sink.Wait(t, 2, patience)
	g.must("queue", "retry", "--all") // else it waits a minute
	got := make(map[string]string)
	for _, m := range sink.Wait(t, 3, patience) {
		if len(m.To) != 1 {
			t.Fatalf("to %s", m.To)
		}
		got[m.To[0]] = string(m.Data)
	}
	if n := len(f.handed()); n != 2 || !slices.Equal(f.handed()[1].To, to[2:]) {
		t.Errorf("the filter was asked %d times", n)
	}
	for i, one := range to {
		want := "body\r\n"
		if i == 1 {
			want = "body of " + one + "\r\n" // c was alone the second time, and is the first then
		}
		if !strings.Contains(got[one], "X-For: "+one+"\r\n") || !strings.Contains(got[one], "\r\n\r\n"+want) {
			t.Errorf("%s got\n%s", one, got[one])
		}
	}
}

// S-17: what has no token of a message that is with the filter is refused, wherever it comes
// from and whatever else it has; and so is what does not keep to the line ends.
func TestS17Reinjection(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	g, sink := filtering(t, f, "")
	expect := func(what string, want int, code int, reply string) {
		t.Helper()
		if code != want {
			t.Errorf("%s: %d %s, want %d", what, code, reply, want)
		}
	}
	code, reply := f.bring("a@example.net", []string{"bob@example.org"}, plainMail)
	expect("no token", 550, code, reply)
	code, reply = f.bring("a@example.net", []string{"bob@example.org"}, "X-Postern-Reinject: AAAAAAAAAAAAAAAAAAAAAAAAAA\r\n"+plainMail)
	expect("another token", 550, code, reply)
	f.script(func(h *handed) error {
		code, reply := f.bring(h.From, []string{"eve@example.org"}, h.Text)
		expect("for somebody else", 550, code, reply)
		for name, bad := range map[string]string{"bare LF": "x\ny\r\n", "bare CR": "x\ry\r\n", "NUL": "x\x00y\r\n", "a dot between bare LFs": "x\n.\nMAIL FROM:<e@x>\r\n", "a dot after a bare LF": "x\n.\r\nMAIL FROM:<e@x>\r\n"} {
			code, reply := f.bring(h.From, h.To, h.Text+bad)
			expect(name, 554, code, reply)
		}
		code, reply = f.bring(h.From, h.To, h.token()+h.Text)
		expect("two tokens", 550, code, reply)
		code, reply = f.bring(h.From, h.To, h.Text)
		expect("good", 250, code, reply)
		code, reply = f.bring(h.From, h.To, h.Text)
		expect("again", 550, code, reply)
		return nil
	})
	code, reply = g.handIn("a@example.net", []string{"bob@example.org"}, plainMail)
	expect("all in all", 250, code, reply)
	h := f.handed()[0]
	code, reply = f.bring(h.From, h.To, h.Text)
	expect("after the end", 550, code, reply)
	// The token is no pass for another listener, and does not get through one.
	code, reply = g.handIn("a@example.net", []string{"carol@example.org"}, h.token()+plainMail)
	if !strings.HasPrefix(f.handed()[1].Text, "X-Postern-Reinject: ") || strings.Contains(f.handed()[1].Text, h.token()) {
		t.Errorf("a token came in from outside: %d %s", code, reply)
	}
	for _, m := range sink.Wait(t, 1, patience) {
		if !slices.Equal(m.To, []string{"bob@example.org"}) || strings.Contains(string(m.Data), "Reinject") {
			t.Errorf("to %s\n%s", m.To, m.Data)
		}
	}
	// Nothing of what was refused is in the queue, and no content is left.
	if q := g.queue(); len(q) != 0 {
		t.Errorf("%+v", q)
	}
}

// Who may connect is configured; here nobody on this machine may.
func TestReinjectionClients(t *testing.T) {
	t.Parallel()
	g := start(t, forwarding("example.org", "smtp://127.0.0.1:25")+withReinjection+"clients = [\"192.0.2.0/24\"]\n")
	connect(t, g.addr[1]).expect(554)
}
