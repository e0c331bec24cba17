package main_test

import (
	"bytes"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-milter"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// scripted is a milter that does what the message asks for in its X-Do fields, a word each,
// and answers to recipients by their local parts.
type scripted struct {
	milter.NoOpMilter
	do     []string
	body   []byte
	macros map[string]string
}

func (s *scripted) Connect(_ string, _ string, _ uint16, _ net.IP, m *milter.Modifier) (milter.Response, error) {
	s.macros = m.Macros
	return milter.RespContinue, nil
}

func (s *scripted) RcptTo(to string, _ *milter.Modifier) (milter.Response, error) {
	switch local, _, _ := strings.Cut(to, "@"); local {
	case "refused":
		return milter.NewResponseStr('y', "550-5.1.1 not\r\n550 5.1.1 here"), nil
	case "later":
		return milter.NewResponseStr('y', "452 4.2.2 full"), nil
	}
	return milter.RespContinue, nil
}

func (s *scripted) Header(name, value string, _ *milter.Modifier) (milter.Response, error) {
	if name == "X-Do" {
		s.do = append(s.do, strings.TrimSpace(value))
	}
	return milter.RespContinue, nil
}

func (s *scripted) Headers(textproto.MIMEHeader, *milter.Modifier) (milter.Response, error) {
	return milter.RespContinue, nil
}

func (s *scripted) BodyChunk(chunk []byte, _ *milter.Modifier) (milter.Response, error) {
	s.body = append(s.body, chunk...)
	return milter.RespContinue, nil
}

func (s *scripted) Body(m *milter.Modifier) (milter.Response, error) {
	var answer milter.Response = milter.RespContinue
	for _, word := range s.do {
		var err error
		switch word {
		case "header":
			err = m.AddHeader("X-Added", fmt.Sprintf("%d octets;\n\tfrom %s for %s", len(s.body), s.macros["{client_addr}"], s.macros["j"]))
			m.InsertHeader(1, "X-Inserted", "below")
			m.ChangeHeader(2, "X-Old", "changed")
			m.ChangeHeader(1, "X-Old", "")
		case "body":
			err = m.ReplaceBody([]byte("new\r\n"))
			m.ReplaceBody(bytes.ToUpper(s.body))
		case "envelope":
			err = m.ChangeFrom("<other@example.net>")
			m.DeleteRecipient("bob@example.org")
			m.AddRecipient("carol@example.org")
		case "quarantine":
			err = m.Quarantine("looks odd")
		case "reject":
			answer = milter.NewResponseStr('y', "554 5.7.7 No, 100%% no")
		case "tempfail":
			answer = milter.RespTempFail
		case "discard":
			answer = milter.RespDiscard
		case "shutdown":
			answer = milter.NewResponse('4', nil)
		case "garbage":
			answer = milter.NewResponse('Z', []byte("zzz"))
		case "hang up":
			err = fmt.Errorf("as asked for")
		}
		if err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// startScripted starts the milter and returns its address.
func startScripted(t testing.TB) string {
	t.Helper()
	return serveMilter(t, func() milter.Milter { return &scripted{} })
}

func serveMilter(t testing.TB, session func() milter.Milter) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &milter.Server{NewMilter: session}
	go s.Serve(l)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func withMilter(name, addr, more string) string {
	return fmt.Sprintf("[[plugin]]\nname = %q\nuse = \"milter\"\n%s\n[plugin.settings]\naddress = %q\n", name, more, addr)
}

// What a milter changes is what arrives, and nothing else is touched.
func TestMilterChanges(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+withMilter("first", startScripted(t), "")+withMilter("second", startScripted(t), ""))
	send := func(do string) smtptest.Message {
		t.Helper()
		n := len(sink.Messages())
		g.deliver("alice@example.net", []string{"bob@example.org"}, "X-Old: 1\r\n"+do+"X-Old: 2\r\nSubject:odd\r\n\r\n..text")
		return sink.Wait(t, n+1, patience)[n]
	}
	untouched(t, send("").Data, []byte("X-Old: 1\r\nX-Old: 2\r\nSubject:odd\r\n\r\n.text\r\n"))

	m := send("X-Do: header\r\n")
	// The second one changes a field that is not there any more, which adds it.
	added := "X-Added: 7 octets;\r\n\tfrom 127.0.0.1 for mx.example.org\r\n"
	want := "\r\nX-Inserted: below\r\nX-Inserted: below\r\nX-Do: header\r\nSubject:odd\r\n" + added + added + "X-Old: changed\r\n\r\n.text\r\n"
	if s := string(m.Data); !strings.HasPrefix(s, "Received: ") || !strings.HasSuffix(s, want) || strings.Count(s, "\r\nX-") != 6 {
		t.Errorf("the message is\n%s", s)
	}
	m = send("X-Do: body\r\n")
	if s := string(m.Data); !strings.HasSuffix(s, "\r\n\r\nNEW\r\n.TEXT\r\n") && !strings.HasSuffix(s, "\r\n\r\nnew\r\nNEW\r\n.TEXT\r\n") {
		t.Errorf("the message is\n%s", s)
	}
	m = send("X-Do: envelope\r\n")
	if m.From != "other@example.net" || len(m.To) != 1 || m.To[0] != "carol@example.org" {
		t.Errorf("from %s to %v", m.From, m.To)
	}
}

// What a milter refuses is refused on the wire, in its words.
func TestMilterRefuses(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+"[[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"lmtp\"\n"+withMilter("filter", startScripted(t), ""))
	post := func(addr, hello, do string, to ...string) (replies []string) {
		t.Helper()
		c := dial(t, addr)
		c.cmd(250, "%s client.example.net", hello)
		c.cmd(250, "MAIL FROM:<alice@example.net>")
		for _, r := range to {
			c.cmd(250, "RCPT TO:<%s@example.org>", r)
		}
		c.cmd(354, "DATA")
		c.send("X-Do: " + do + "\r\nSubject: x\r\n\r\ntext\r\n.\r\n")
		for range to {
			code, text, err := c.reply()
			if err != nil {
				t.Fatal(err)
			}
			replies = append(replies, fmt.Sprint(code, " ", text))
			if hello != "LHLO" {
				break
			}
		}
		return replies
	}
	for do, want := range map[string]string{
		"reject":   "554 5.7.7 No, 100% no",
		"tempfail": "451 4.7.1 Service unavailable, try again later",
		"shutdown": "451 4.7.1 Service closing, try again later",
		"garbage":  "451 4.3.0 Message cannot be checked now, try again later",
		"hang up":  "451 4.3.0 Message cannot be checked now, try again later",
	} {
		if got := post(g.addr[0], "EHLO", do, "bob"); got[0] != want {
			t.Errorf("%s: %q", do, got)
		}
	}
	if got := post(g.addr[0], "EHLO", "none", "refused"); got[0] != "550 5.1.1 not here" {
		t.Errorf("refused: %q", got)
	}
	if got := post(g.addr[0], "EHLO", "none", "refused", "later"); got[0] != "452 4.2.2 full" {
		t.Errorf("refused and later: %q", got)
	}
	if n := len(sink.Messages()); n != 0 || len(g.queue()) != 0 {
		t.Fatalf("%d messages went on, the queue has %v", n, g.queue())
	}
	// LMTP: a reply for each recipient, and the one that is left gets the message.
	got := post(g.addr[1], "LHLO", "none", "refused", "bob", "later")
	if len(got) != 3 || got[0] != "550 5.1.1 not here" || !strings.HasPrefix(got[1], "250 ") || got[2] != "452 4.2.2 full" {
		t.Errorf("LMTP: %q", got)
	}
	if m := sink.Wait(t, 1, patience)[0]; len(m.To) != 1 || m.To[0] != "bob@example.org" {
		t.Errorf("%v", m.To)
	}
	if got := post(g.addr[0], "EHLO", "discard", "bob"); !strings.HasPrefix(got[0], "250 ") || len(g.queue()) != 0 {
		t.Errorf("discard: %q, %v", got, g.queue())
	}
	if got := post(g.addr[0], "EHLO", "quarantine", "bob"); !strings.HasPrefix(got[0], "250 ") {
		t.Errorf("quarantine: %q", got)
	}
	if q := g.queue(); len(q) != 1 || q[0].State != "held" || !strings.Contains(q[0].Reason, "looks odd") {
		t.Errorf("quarantine: %+v", q)
	}
	if n := len(sink.Messages()); n != 1 {
		t.Errorf("%d messages at the sink", n)
	}
	if n := g.log.count("plugin died", nil); n != 0 {
		t.Errorf("the plugin died %d times", n)
	}
}

// A milter that is away: each entry fails as it is told to.
func TestMilterAway(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	nobody := filepath.Join(t.TempDir(), "s")
	g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+withMilter("lenient", nobody, `on_failure = "accept"`))
	g.deliver("alice@example.net", []string{"bob@example.org"}, "Subject: x\r\n\r\ntext")
	if m := sink.Wait(t, 1, patience)[0]; !bytes.HasPrefix(m.Data, []byte("X-Postern-Unscanned: lenient (milter not reachable)\r\n")) || bytes.Contains(m.Data, []byte(nobody)) {
		t.Errorf("%s", m.Data)
	}
	// Parked mail is shown to the milter when it is back.
	g = start(t, forwarding("example.org", "smtp://"+sink.Addr())+withMilter("strict", nobody, `on_failure = "park"`))
	g.deliver("alice@example.net", []string{"bob@example.org"}, "X-Do: header\r\n\r\ntext")
	l, err := net.Listen("unix", nobody)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &milter.Server{NewMilter: func() milter.Milter { return &scripted{} }}
	go s.Serve(l)
	g.hurry() // it would be asked again within a minute
	if m := sink.Wait(t, 2, patience)[1]; !bytes.Contains(m.Data, []byte("X-Added: ")) {
		t.Errorf("%s", m.Data)
	}
	// One that hangs holds nobody up for longer than it may, by its own limit or the call's.
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, more := range []string{withMilter("hangs", silent.Addr().String(), `on_failure = "reject"`) + "timeouts = {connect = \"100ms\"}\n",
		withMilter("hangs", silent.Addr().String(), "on_failure = \"reject\"\ntimeout = \"1s\"")} {
		g = start(t, forwarding("example.org", "smtp://"+sink.Addr())+more)
		c := dial(t, g.addr[0])
		c.cmd(250, "EHLO client.example.net")
		c.cmd(250, "MAIL FROM:<alice@example.net>")
		c.cmd(250, "RCPT TO:<bob@example.org>")
		c.cmd(354, "DATA")
		c.send("Subject: x\r\n\r\ntext\r\n.\r\n")
		c.expect(554)
	}
}

// loginTold is a milter that notes what it is told of a log-in and of the connection.
type loginTold struct {
	milter.NoOpMilter
	told string
}

func (l *loginTold) Connect(_ string, _ string, _ uint16, _ net.IP, m *milter.Modifier) (milter.Response, error) {
	l.told = m.Macros["{client_connections}"]
	return milter.RespContinue, nil
}

func (l *loginTold) MailFrom(_ string, m *milter.Modifier) (milter.Response, error) {
	l.told += fmt.Sprintf(" %s as %s", m.Macros["{auth_type}"], m.Macros["{auth_authen}"])
	return milter.RespContinue, nil
}

func (l *loginTold) Body(m *milter.Modifier) (milter.Response, error) {
	return milter.RespContinue, m.AddHeader("X-Told", l.told)
}

// A milter is told the mechanism of a log-in and how many connections the client has, also when
// the message has waited for it and the client is gone.
func TestMilterLogin(t *testing.T) {
	t.Parallel()
	parked := filepath.Join(t.TempDir(), "s")
	g, s := people(t, withMilter("there", serveMilter(t, func() milter.Milter { return &loginTold{} }), "")+withMilter("away", parked, `on_failure = "park"`))
	first := g.inside()
	first.cmd(235, "AUTH PLAIN %s", plain("alice@example.org", "secret of alice"))
	first.message("alice@example.org", []string{"one@elsewhere.test"}, text)
	second := g.inside()
	if code, reply := scramLogin(t, second, "alice@example.org", "secret of alice"); code != 235 {
		t.Fatal(code, reply)
	}
	second.message("alice@example.org", []string{"two@elsewhere.test"}, text)
	l, err := net.Listen("unix", parked)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := &milter.Server{NewMilter: func() milter.Milter { return &loginTold{} }}
	go server.Serve(l)
	g.hurry()
	for _, m := range s.wait(t, "both", func(m []arrived) bool { return len(m) == 2 }) {
		want := "X-Told: 1 PLAIN as alice@example.org\r\n"
		if m.To[0] == "two@elsewhere.test" {
			want = "X-Told: 2 SCRAM-SHA-256 as alice@example.org\r\n"
		}
		if n := strings.Count(m.Data, want); n != 2 {
			t.Errorf("told %d times %q:\n%s", n, want, m.Data)
		}
	}
}

// The plugin keeps the contract of plugins, with a milter behind it.
func TestMilterContract(t *testing.T) {
	t.Parallel()
	settings := filepath.Join(t.TempDir(), "settings.toml")
	if err := os.WriteFile(settings, fmt.Appendf(nil, "address = %q\n", startScripted(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := postern(t, "", "plugin", "test", "--settings", settings, binary, "plugin", "serve", "milter"); code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// OpenDKIM as a milter signs what a library verifies; and verifies, behind one gateway, what
// our dkim plugin signed in another.
func TestMilterOpenDKIM(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	dir, records := signing(t, forwarding("elsewhere.test", "smtp://"+sink.Addr())+withSigning)
	var keys strings.Builder
	for name, value := range records {
		fmt.Fprintf(&keys, "%s %s\n", name, value)
	}
	verifier := peertest.StartOpenDKIM(t, map[string]string{"keys": keys.String()}, "Mode v", "TestPublicKeys $DIR/keys", "AlwaysAddARHeader yes", "AuthservID mx.example.org", "InternalHosts 192.0.2.1")
	behind := start(t, strings.Replace(forwarding("elsewhere.test", "smtp://"+sink.Addr()), "127.0.0.0/8", "192.0.2.0/24", 1)+withMilter("opendkim", verifier.Address, ""))
	front := startIn(t, dir, forwarding("elsewhere.test", "smtp://"+behind.addr[0])+withSigning+published(t, records))
	key, err := os.ReadFile(filepath.Join(dir, "data", "dkim", "example.org.postern.pem"))
	if err != nil {
		t.Fatal(err)
	}
	signer := peertest.StartOpenDKIM(t, map[string]string{"key": string(key)}, "Mode s", "Domain example.org", "Selector postern", "KeyFile $DIR/key", "Canonicalization simple/simple")
	signs := start(t, forwarding("elsewhere.test", "smtp://"+sink.Addr())+withMilter("opendkim", signer.Address, ""))
	for _, name := range []string{"plain", "folded", "8-bit", "trailing spaces", "long lines", "repeated", "MIME", "empty lines", "dots"} {
		text := fmt.Sprintf(signable[name], "example.org")
		for _, g := range []*gateway{front, signs} {
			n := len(sink.Messages())
			swaksOK(t, g.addr[0], "--from", "alice@example.org", "--to", "bob@elsewhere.test", "--no-data-fixup", "--data", "@"+wireFile(t, text))
			m := sink.Wait(t, n+1, patience)[n].Data
			verified(t, name, m, "example.org", "rsa-sha256", records)
			if ar := "Authentication-Results: mx.example.org;\r\n\tdkim=pass"; g == front && !bytes.Contains(m, []byte(ar)) {
				t.Errorf("%s: opendkim does not verify\n%.1500s", name, m)
			}
		}
	}
}

// rspamd and clamav-milter, one after the other: spam and viruses are refused on the wire, what
// is clean is marked by both, and without clamd nothing passes.
func TestMilterRspamdAndClamav(t *testing.T) {
	t.Parallel()
	peertest.Program(t, "clamav-milter")
	rspamd, clamd := peertest.StartRspamd(t), peertest.StartClamd(t)
	clamav := peertest.StartClamavMilter(t, clamd, "OnInfected Reject", `RejectMsg "Infected by %v"`, "OnFail Defer", "AddHeader Replace")
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+withMilter("rspamd", rspamd.Milter, "")+withMilter("clamav", clamav.Socket, ""))
	offer := func(code int, header, body, want string) {
		t.Helper()
		c := dial(t, g.addr[0])
		c.cmd(250, "EHLO client.example.net")
		c.cmd(250, "MAIL FROM:<alice@example.net>")
		c.cmd(250, "RCPT TO:<bob@example.org>")
		c.cmd(354, "DATA")
		c.send("From: alice@example.net\r\nSubject: x\r\n" + header + "\r\n" + body + "\r\n.\r\n")
		if reply := c.expect(code); !strings.Contains(reply, want) {
			t.Errorf("%d %s", code, reply)
		}
	}
	offer(250, "X-Test-Milter: 1\r\n", "clean", "")
	if s := string(sink.Wait(t, 1, patience)[0].Data); !strings.Contains(s, "X-Rspamd-Test: yes\r\n") || !strings.Contains(s, "X-Virus-Status: Clean\r\n") {
		t.Errorf("the message is\n%s", s)
	}
	offer(554, "", peertest.GTUBE, "Gtube")
	offer(550, "", peertest.EICAR(), "Infected by Eicar")
	large := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 20000) // goes through files
	offer(550, "", large+peertest.Virus, "Infected by Postern.Test.Virus")
	clamd.Stop()
	offer(451, "", "clean", "")
	if n := len(sink.Messages()); n != 1 {
		t.Errorf("%d messages at the sink", n)
	}
}
