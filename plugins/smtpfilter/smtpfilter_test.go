package smtpfilter

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// peer is a filter that does what a test says.
type peer struct {
	addr   string
	offers []string // in the answer to EHLO
	ask    func(text string) string
	rcpt   string // the answer to RCPT

	mu       sync.Mutex
	commands []string
}

func newPeer(t *testing.T, network string, offers ...string) *peer {
	t.Helper()
	p := &peer{offers: offers, ask: func(string) string { return "250 2.0.0 Ok" }, rcpt: "250 2.1.5 Ok"}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p.addr = l.Addr().String()
	if network == "unix" {
		p.addr = "unix:" + p.addr
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *peer) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	say := func(s string) { io.WriteString(c, s+"\r\n") }
	say("220 filter.test")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		p.mu.Lock()
		p.commands = append(p.commands, line)
		p.mu.Unlock()
		switch strings.ToUpper(line[:min(4, len(line))]) {
		case "EHLO":
			if p.offers == nil {
				say("502 5.5.1 no such thing")
				continue
			}
			say("250-" + strings.Join(append([]string{"filter.test"}, p.offers...), "\r\n250-") + "\r\n250 HELP")
		case "RCPT":
			say(p.rcpt)
		case "DATA":
			say("354 go")
			var text strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				text.WriteString(strings.TrimPrefix(line, "."))
			}
			say(p.ask(text.String()))
		case "QUIT":
			return
		default:
			say("250 2.0.0 Ok")
		}
	}
}

func (p *peer) said() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.commands)
}

func plugin(t *testing.T, addr, more string) (*Plugin, *sdktest.Host) {
	t.Helper()
	host := sdktest.NewHost(t)
	p := New()
	settings := fmt.Sprintf("address = %q\n%s", addr, more)
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings), Hostname: "mx.example.org", Host: host.Handle}); err != nil {
		t.Fatal(err)
	}
	return p, host
}

func message(to ...string) *mail.Message {
	m := &mail.Message{Header: mail.NewHeader([]byte("Subject: s\r\n\r\n")), Body: mail.InlineBody([]byte("body\r\n.\r\n"))}
	m.Envelope = mail.Envelope{ID: "0c1f3k9w2m4xq", Origin: mail.Incoming, ReversePath: mail.MustPath("a@example.net"), BodyType: mail.Body8BitMIME,
		Client: mail.Client{Addr: netip.MustParseAddr("2001:db8::7"), Port: 4096, Helo: "client=x", Protocol: "ESMTPS"}}
	for _, r := range to {
		m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: mail.MustPath(r)})
	}
	return m
}

// What the filter offers is used, and what it does not offer is not.
func TestDialogue(t *testing.T) {
	f := newPeer(t, "tcp", "PIPELINING", "8BITMIME", "SIZE 100000", "SMTPUTF8", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")
	p, host := plugin(t, f.addr, "")
	f.ask = func(text string) string {
		if err := host.Reinject(mail.MustPath("a@example.net"), []mail.Path{mail.MustPath("b@x.test"), mail.MustPath("C@x.test")}, []byte(text)); err != nil {
			return "451 " + err.Error()
		}
		return "250 2.0.0 Ok, passed"
	}
	v, err := sdktest.Filter(t, p, Manifest(), message("b@x.test", "c@x.test"))
	if err != nil {
		t.Fatal(err)
	}
	if v.Action != sdk.ActionContinue || len(v.Edits) != 0 || len(v.PerRecipient) != 0 || v.Notes["reply"] != "250 2.0.0 Ok, passed" {
		t.Errorf("%+v", v)
	}
	want := []string{"EHLO mx.example.org", "XFORWARD NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7 PORT=4096 PROTO=ESMTP HELO=client+3Dx IDENT=0c1f3k9w2m4xq SOURCE=REMOTE",
		"MAIL FROM:<a@example.net> SIZE=71 BODY=8BITMIME", "RCPT TO:<b@x.test>", "RCPT TO:<c@x.test>", "DATA"}
	if got := f.said(); !slices.Equal(got[:min(6, len(got))], want) {
		t.Errorf("said\n%s", strings.Join(got, "\n"))
	}

	bare := newPeer(t, "unix")
	p, _ = plugin(t, bare.addr, "helo = \"gw.test\"\nswallowed = \"discard\"")
	m := message("b@x.test")
	m.Envelope.ReversePath = mail.Path{}
	v, err = sdktest.Filter(t, p, Manifest(), m)
	if err != nil || v.Action != sdk.ActionDiscard || !strings.Contains(v.Reason, "did not bring it back") {
		t.Errorf("%+v, %v", v, err)
	}
	if got := bare.said(); !slices.Equal(got[:min(5, len(got))], []string{"EHLO gw.test", "HELO gw.test", "MAIL FROM:<>", "RCPT TO:<b@x.test>", "DATA"}) {
		t.Errorf("said\n%s", strings.Join(got, "\n"))
	}
}

// What cannot be handed over as it is, is unscanned and not passed.
func TestUnscanned(t *testing.T) {
	f := newPeer(t, "tcp", "SIZE 71")
	p, _ := plugin(t, f.addr, "")
	utf8 := message("b@x.test")
	utf8.Envelope.Recipients[0].Path.Local = "bücher"
	large := message("b@x.test")
	large.Body = mail.InlineBody([]byte("body\r\n.\r\n "))
	bad := message("b@x.test")
	bad.Body = mail.InlineBody([]byte("a\n.\r\n"))
	gone := message("b@x.test")
	gone.Body = mail.Body{Path: filepath.Join(t.TempDir(), "gone"), Size: 3}
	for want, m := range map[string]*mail.Message{"UTF-8": utf8, "too large": large, "bare LF": bad, "cannot be read": gone} {
		v, err := sdktest.Filter(t, p, Manifest(), m)
		if err != nil || v.Action != sdk.ActionUnscanned || !strings.Contains(v.Reason, want) {
			t.Errorf("%s: %+v, %v", want, v, err)
		}
	}
	if v, err := sdktest.Filter(t, p, Manifest(), message("b@x.test")); err != nil || v.Action != sdk.ActionQuarantine {
		t.Errorf("of the size that it takes: %+v, %v", v, err)
	}
}

// REQUIRETLS (RFC 8689) is about leaving this machine.
func TestLocal(t *testing.T) {
	for want, addresses := range map[bool][]net.Addr{
		true:  {&net.TCPAddr{IP: net.ParseIP("127.0.0.9")}, &net.TCPAddr{IP: net.IPv6loopback}, &net.UnixAddr{}},
		false: {&net.TCPAddr{IP: net.ParseIP("192.0.2.1")}, &net.TCPAddr{IP: net.ParseIP("10.0.0.1")}, &net.TCPAddr{}},
	} {
		for _, a := range addresses {
			if local(a) != want {
				t.Errorf("%v", a)
			}
		}
	}
	f := newPeer(t, "tcp")
	p, _ := plugin(t, f.addr, "")
	m := message("b@x.test")
	m.Envelope.RequireTLS = true
	if v, err := sdktest.Filter(t, p, Manifest(), m); err != nil || v.Action == sdk.ActionUnscanned {
		t.Errorf("%+v, %v", v, err)
	}
}

// Hundreds of recipients, each with an answer.
func TestManyRecipients(t *testing.T) {
	var to []string
	for i := range 300 {
		to = append(to, fmt.Sprintf("r%d@x.test", i))
	}
	f := newPeer(t, "tcp", "PIPELINING")
	f.rcpt = "450 4.2.1 not now"
	p, _ := plugin(t, f.addr, "")
	v, err := sdktest.Filter(t, p, Manifest(), message(to...))
	if err != nil || v.Action != sdk.ActionTempfail || v.Status.Text != "not now" || len(v.PerRecipient) != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if slices.Contains(f.said(), "DATA") {
		t.Error("a message for nobody")
	}
}

// Every wrong setting is named.
func TestSettings(t *testing.T) {
	for settings, want := range map[string]string{
		"":                                               "address: it is missing",
		"address = \"host\"":                             "address:",
		"address = \":25\"":                              "address:",
		"address = \"x:0\"":                              "address:",
		"address = \"unix:a\"":                           "is not the path of a socket",
		"address = \"x:1\"\nx = 1":                       `"x"`,
		"address = \"x:1\"\nprotocol = \"LMTP\"":         "protocol:",
		"address = \"x:1\"\nhelo = \"a b\"":              "helo:",
		"address = \"x:1\"\nconnections = 0":             "connections:",
		"address = \"x:1\"\nconnections = 101":           "connections:",
		"address = \"x:1\"\nconnect_timeout = \"0s\"":    "connect_timeout",
		"address = \"x:1\"\nreply_timeout = \"-1s\"":     "reply_timeout",
		"address = \"x:1\"\nswallowed = \"\"":            "swallowed:",
		"address = \"x:1\"\nconnections = 100":           "",
		"address = \"unix:/run/x\"\nprotocol = \"lmtp\"": "",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings), Hostname: "mx.example.org"})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", settings, err)
		}
	}
	if _, err := (&Plugin{slots: make(chan struct{}, 1)}).Filter(t.Context(), message("b@x.test")); err == nil {
		t.Error("without a gateway there is nothing to wait for")
	}
}
