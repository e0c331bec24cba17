package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// What the tests with real peers share: swaks as the client that people type, mailboxes
// to read back from, and the comparison of what was sent with what arrived.

// swaks runs it and returns its transcript and exit code. Its defaults are pinned, so that
// no file of this machine changes what a test sends.
func swaks(t testing.TB, addr string, args ...string) (string, int) {
	t.Helper()
	peer(t, "swaks")
	cmd := exec.Command("swaks", append([]string{"--server", addr, "--helo", "client.example.net", "--timeout", "30"}, args...)...)
	cmd.Env = append(os.Environ(), "SWAKS_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// swaksOK is swaks for mail that has to be taken. It returns the transcript and the queue id.
func swaksOK(t testing.TB, addr string, args ...string) (transcript, id string) {
	t.Helper()
	out, code := swaks(t, addr, args...)
	if code != 0 {
		t.Fatalf("swaks: exit code %d\n%s", code, out)
	}
	m := regexp.MustCompile(`(?m)^<[-~]  250 2\.0\.0 Ok: queued as (\S+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no accepting reply in\n%s", out)
	}
	return out, m[1]
}

// sent is the message in a transcript of swaks: what followed 354, dots unstuffed.
func sent(t testing.TB, transcript string) []byte {
	t.Helper()
	_, rest, ok := strings.Cut(transcript, "  354 ")
	if !ok {
		t.Fatalf("no message in\n%s", transcript)
	}
	_, rest, _ = strings.Cut(rest, "\n")
	var b bytes.Buffer
	for line := range strings.SplitSeq(rest, "\n") {
		if len(line) < 4 || line[:4] != " -> " && line[:4] != " ~> " {
			break
		}
		line = strings.TrimSuffix(line[4:], "\r")
		if line == "." {
			return b.Bytes()
		}
		b.WriteString(strings.TrimPrefix(line, "."))
		if strings.HasPrefix(line, ".") && !strings.HasPrefix(line, "..") {
			t.Fatalf("swaks did not stuff the dot of %q", line)
		}
		b.WriteString("\r\n")
	}
	t.Fatalf("no end of the message in\n%s", transcript)
	return nil
}

// wireFile writes a message as it goes over the wire (dots stuffed, final dot) into a file
// for swaks --no-data-fixup --data @FILE.
func wireFile(t testing.TB, message string) string {
	t.Helper()
	if !strings.HasSuffix(message, "\r\n") {
		t.Fatal("a message ends with CRLF")
	}
	file := filepath.Join(t.TempDir(), "wire")
	stuffed := strings.ReplaceAll("\r\n"+message, "\r\n.", "\r\n..")[2:]
	if err := os.WriteFile(file, []byte(stuffed+".\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// ourReceived is the field that intake documents to add, and nothing more.
var ourReceived = regexp.MustCompile(`(?m)^Received: from \S+ \(\[127\.0\.0\.1\]\)\r\n` +
	`\tby mx\.example\.org \(Postern\) with (?:UTF8|)(?:E?SMTPS?A?)(?: \([^()\r\n]+\))?\r\n` +
	`\tid \S+(?:\r\n\tfor <[^>\r\n]+>)?;\r\n\t[^\r\n]+\r\n`)

// untouched compares a message that arrived with what was sent: before our Received there
// may be fields of later hosts, and after it everything is as it was, to the last byte.
func untouched(t testing.TB, arrived, want []byte) {
	t.Helper()
	at := ourReceived.FindIndex(arrived)
	if at == nil {
		t.Fatalf("no Received of ours in\n%.2000q", arrived)
	}
	if got := arrived[at[1]:]; !bytes.Equal(got, want) {
		n := 0
		for n < len(got) && n < len(want) && got[n] == want[n] {
			n++
		}
		t.Fatalf("%d bytes arrived, %d were sent; they differ from byte %d on:\n%.300q\n%.300q", len(got), len(want), n, got[max(0, n-40):], want[max(0, n-40):])
	}
	if n := len(ourReceived.FindAll(arrived, -1)); n != 1 {
		t.Fatalf("%d Received fields of ours", n)
	}
}

// maildirFiles waits for n messages in a Maildir and returns their contents with CRLF line
// ends, in order of delivery.
func maildirFiles(t testing.TB, dir string, n int) [][]byte {
	t.Helper()
	var names []string
	for deadline := time.Now().Add(patience); ; {
		names, _ = filepath.Glob(filepath.Join(dir, "new", "*"))
		if len(names) >= n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages in %s, want %d", len(names), dir, n)
		}
		time.Sleep(20 * time.Millisecond) // another program's delivery: nothing tells us
	}
	if len(names) > n {
		t.Fatalf("%d messages in %s, want %d", len(names), dir, n)
	}
	slices.Sort(names)
	var all [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte("\r\n")) { // Maildirs mostly have the line ends of the system
			b = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
		}
		all = append(all, b)
	}
	return all
}

// virtualPostfix is a Postfix with maildirs for these users of a domain, and refuses others.
func virtualPostfix(t testing.TB, domain string, users []string, more string) *postfix {
	t.Helper()
	peer(t, "postfix")
	p := newPostfix(t, fmt.Sprintf(`virtual_mailbox_domains = %s
virtual_mailbox_base = $data_directory/../mail
virtual_mailbox_maps = inline:{%s}
virtual_minimum_uid = 1
virtual_uid_maps = static:%s
virtual_gid_maps = static:%s
local_header_rewrite_clients =
message_size_limit = 50000000
mailbox_size_limit = 0
virtual_mailbox_limit = 0
%s`, domain, mailboxes(domain, users), id(t, "-u"), id(t, "-g"), more))
	return p
}

func mailboxes(domain string, users []string) string {
	var b strings.Builder
	for _, u := range users {
		fmt.Fprintf(&b, " {%s@%s = %s/}", u, domain, u)
	}
	return b.String()
}

func id(t testing.TB, flag string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "id", flag, "postfix"))
}

// mailbox is where a virtualPostfix delivers for a user.
func (p *postfix) mailbox(user string) string { return filepath.Join(p.dir, "mail", user) }

// deadEnd is an address that refuses connections.
func deadEnd(t testing.TB) string { return freePort(t) }

// forwarding is basics and a domain whose mail goes to these next hops.
func forwarding(domain string, hops ...string) string {
	return basics + fmt.Sprintf("[[domain]]\nname = %q\nrecipients = \"any\"\ndeliver = [%s]\n", domain, quoted(hops))
}

func quoted(list []string) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(q, ", ")
}

// odd is a message with what relays like to change (H-09).
var odd = "From: alice@example.net\r\n" +
	"To: bob@example.org,\r\n\t  carol@example.org \r\n" +
	"Subject: K\xc3\xa4se and \xff raw bytes   \r\n" +
	"X-Long: " + strings.Repeat("word ", 180) + "\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n" +
	"\r\n" +
	".\r\n" +
	"..\r\n" +
	".leading dot\r\n" +
	"trailing spaces   \t \r\n" +
	"From the beginning\r\n" +
	"8-bit: \xe4\xf6\xfc \xc3\xa4 \xff\xfe\r\n" +
	strings.Repeat("x", 998) + "\r\n" +
	"\r\n\r\n" +
	"%DATE% \\n &amp; =20\r\n" +
	".. \r\n" +
	"\r\n"

// S: swaks -> Postern -> Postfix -> Maildir, byte for byte, for several recipients in one
// transaction.
func TestH09ThroughPostfix(t *testing.T) {
	t.Parallel()
	p := virtualPostfix(t, "example.org", []string{"bob", "carol", "dave"}, "")
	p.start(t, "")
	g := start(t, forwarding("example.org", "smtp://"+p.addr))
	swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org,carol@example.org,dave@example.org",
		"--no-data-fixup", "--data", "@"+wireFile(t, odd))
	for _, user := range []string{"bob", "carol", "dave"} {
		m := maildirFiles(t, p.mailbox(user), 1)[0]
		untouched(t, m, []byte(odd))
		if !bytes.HasPrefix(m, []byte("Return-Path: <alice@example.net>\r\n")) {
			t.Errorf("reverse-path changed: %.100q", m)
		}
		if bytes.Contains(m[:bytes.Index(m, []byte("(Postern)"))+400], []byte("for <bob@example.org>;\r\n\t")) && user != "bob" {
			t.Error("Received names another recipient")
		}
	}
	g.log.wait(t, "delivered", has("to", "dave@example.org"))
	g.drained()
}

// The same for what a mail program would make: MIME with attachments, large enough to be a
// file of its own in the spool.
func TestH09AttachmentsThroughPostfix(t *testing.T) {
	t.Parallel()
	p := virtualPostfix(t, "example.org", []string{"bob"}, "")
	p.start(t, "")
	g := start(t, forwarding("example.org", "smtp://"+p.addr))
	file := filepath.Join(t.TempDir(), "image.png")
	content := make([]byte, 700_000)
	for i := range content {
		content[i] = byte(i * i >> 3)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--attach-type", "image/png", "--attach", "@" + file},
		{"--body", "short\n.\nline with a dot alone above\n"},
	} {
		out, _ := swaksOK(t, g.addr[0], append(args, "--from", "alice@example.net", "--to", "bob@example.org")...)
		want := sent(t, out)
		m := maildirFiles(t, p.mailbox("bob"), 1)[0]
		untouched(t, m, want)
		names, _ := filepath.Glob(filepath.Join(p.mailbox("bob"), "new", "*"))
		os.Remove(names[0])
	}
}

// N-13: of the recipients that Postfix refuses in the transaction the sender hears; the
// others have their mail.
func TestN13PostfixRefusesOne(t *testing.T) {
	t.Parallel()
	p := virtualPostfix(t, "example.org", []string{"bob"}, "")
	p.start(t, "")
	back := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+p.addr)+
		fmt.Sprintf("[[domain]]\nname = \"example.net\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", back.Addr()))
	_, id := swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org,nobody@example.org",
		"--no-data-fixup", "--data", "@"+wireFile(t, odd))
	untouched(t, maildirFiles(t, p.mailbox("bob"), 1)[0], []byte(odd))
	dsn := parseReport(t, back.Wait(t, 1, patience)[0])
	if len(dsn.recipients) != 1 || dsn.recipients[0].Get("Final-Recipient") != "rfc822; nobody@example.org" {
		t.Fatalf("reported: %v", dsn.recipients)
	}
	r := dsn.recipients[0]
	if r.Get("Status") != "5.1.1" || r.Get("Action") != "failed" || !strings.Contains(r.Get("Diagnostic-Code"), "550 5.1.1") {
		t.Errorf("fields: %v", r)
	}
	if want := id; !strings.Contains(dsn.text, "nobody@example.org") {
		t.Errorf("text of the report on %s:\n%s", want, dsn.text)
	}
	if strings.Contains(dsn.original, "8-bit:") || !strings.Contains(dsn.original, "X-Long: ") {
		t.Errorf("L-06: header only is returned; got\n%.300s", dsn.original)
	}
}

// L-04: a message with the null reverse-path that fails makes no report.
func TestL04NullSenderPostfixRefuses(t *testing.T) {
	t.Parallel()
	p := virtualPostfix(t, "example.org", []string{"bob"}, "")
	p.start(t, "")
	g := start(t, forwarding("example.org", "smtp://"+p.addr))
	_, id := swaksOK(t, g.addr[0], "--from", "<>", "--to", "nobody@example.org")
	g.log.wait(t, "failed", has("id", id))
	// What comes next proves that the outcome was committed and that nothing followed.
	_, id = swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org")
	g.log.wait(t, "delivered", has("id", id))
	if n := g.log.count("dsn", nil); n != 0 {
		t.Errorf("%d reports", n)
	}
	g.drained()
}

// A next hop that greylists with Postfix's policy protocol: deferred once, then taken.
func TestGreylistingPostfix(t *testing.T) {
	t.Parallel()
	policy := greylist(t)
	p := virtualPostfix(t, "example.org", []string{"bob"}, "smtpd_recipient_restrictions = check_policy_service inet:"+policy+", permit\nsmtpd_delay_reject = yes\n")
	p.start(t, "")
	g := start(t, forwarding("example.org", "smtp://"+p.addr))
	_, id := swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, odd))
	deferred := g.log.wait(t, "deferred", has("id", id))
	if !strings.HasPrefix(fmt.Sprint(deferred["code"]), "45") || deferred["status"] != "4.2.0" {
		t.Errorf("deferred with %v", deferred)
	}
	untouched(t, maildirFiles(t, p.mailbox("bob"), 1)[0], []byte(odd))
	if line := g.log.wait(t, "delivered", has("id", id)); line["attempt"] != 2.0 {
		t.Errorf("delivered by attempt %v", line["attempt"])
	}
}

// greylist is a policy server (Postfix SMTPD_POLICY_README) that defers each sender and
// recipient once.
func greylist(t testing.TB) string {
	t.Helper()
	seen := make(chan map[string]bool, 1)
	seen <- make(map[string]bool)
	return smtptest.Serve(t, func(c net.Conn) {
		attrs := make(map[string]string)
		var rest []byte
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			rest = append(rest, buf[:n]...)
			for {
				line, after, ok := bytes.Cut(rest, []byte("\n"))
				if !ok {
					break
				}
				rest = after
				if k, v, ok := strings.Cut(string(line), "="); ok {
					attrs[k] = v
					continue
				}
				key := attrs["sender"] + " " + attrs["recipient"]
				known := <-seen
				action := "DEFER 4.2.0 greylisted, come back"
				if known[key] {
					action = "DUNNO"
				}
				known[key] = true
				seen <- known
				fmt.Fprintf(c, "action=%s\n\n", action)
			}
		}
	})
}

// N-16: of the next hops of a domain the second takes what the first does not, at once and
// once only; the first is used again when the second fails.
func TestN16NextHopFailover(t *testing.T) {
	t.Parallel()
	p := virtualPostfix(t, "example.org", []string{"bob", "carol"}, "")
	p.start(t, "")
	first := smtptest.New(t, smtptest.Options{})
	first.On("BANNER", "421 4.3.2 not now")
	for i, hop := range []string{deadEnd(t), first.Addr()} {
		user := []string{"bob", "carol"}[i]
		g := start(t, forwarding("example.org", "smtp://"+hop, "smtp://"+p.addr))
		_, id := swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", user+"@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, odd))
		line := g.log.wait(t, "delivered", has("id", id))
		if line["attempt"] != 1.0 || g.log.count("deferred", nil) != 0 {
			t.Errorf("not in the first attempt: %v", line)
		}
		untouched(t, maildirFiles(t, p.mailbox(user), 1)[0], []byte(odd))
		if hop == first.Addr() { // it is back, and the other one gone
			p.stop()
			swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, odd))
			untouched(t, first.Wait(t, 1, patience)[0].Data, []byte(odd))
		}
	}
}

// An address beyond ASCII goes through a next hop that offers SMTPUTF8, and comes back from
// one that does not (RFC 6531 §3.6), with a report in the form of RFC 6533.
func TestSMTPUTF8ThroughPostfix(t *testing.T) {
	t.Parallel()
	p := virtualPostfix(t, "example.org", []string{"jürgen", "bob"}, "smtputf8_enable = yes\n")
	p.start(t, "")
	old := virtualPostfix(t, "example.com", []string{"bob"}, "smtputf8_enable = no\n")
	old.start(t, "")
	back := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+p.addr)+
		fmt.Sprintf("[[domain]]\nname = \"example.com\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", old.addr)+
		fmt.Sprintf("[[domain]]\nname = \"example.net\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", back.Addr()))
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	message := "From: alice@example.net\r\nSubject: Grüße\r\n\r\nbody\r\n"
	c.cmd(250, "MAIL FROM:<alice@example.net> BODY=8BITMIME SMTPUTF8")
	c.cmd(250, "RCPT TO:<jürgen@example.org>")
	c.cmd(354, "DATA")
	c.send(message + ".\r\n")
	c.expect(250)
	untouched(t, maildirFiles(t, p.mailbox("jürgen"), 1)[0], []byte(message))

	for _, tc := range []struct{ from, to, header string }{
		{"alice@example.net", "jürgen@example.com", "From: alice@example.net\r\nSubject: plain\r\n"}, // the address needs it
		{"älice@example.net", "bob@example.com", "From: alice@example.net\r\nSubject: plain\r\n"},    // the reverse-path needs it
		{"alice@example.net", "bob@example.com", "From: alice@example.net\r\nSubject: Grüße\r\n"},    // the header needs it
	} {
		n := len(back.Messages())
		c.cmd(250, "MAIL FROM:<%s> BODY=8BITMIME SMTPUTF8", tc.from)
		c.cmd(250, "RCPT TO:<%s>", tc.to)
		c.cmd(354, "DATA")
		c.send(tc.header + "\r\nbody\r\n.\r\n")
		c.expect(250)
		m := back.Wait(t, n+1, patience)[n]
		if m.To[0] != tc.from || m.From != "" {
			t.Errorf("report from <%s> to <%s>", m.From, m.To[0])
		}
		if !strings.Contains(m.Mail, "SMTPUTF8") {
			t.Errorf("the report on a UTF-8 message went as %q", m.Mail)
		}
		r := parseReport(t, m)
		if r.recipients[0].Get("Status") != "5.6.7" || r.kind != "global-delivery-status" {
			t.Errorf("%s to %s: report %s %v", tc.from, tc.to, r.kind, r.recipients[0])
		}
		if want := "utf-8; " + tc.to; tc.to == "jürgen@example.com" && r.recipients[0].Get("Final-Recipient") != want {
			t.Errorf("Final-Recipient %q, want %q", r.recipients[0].Get("Final-Recipient"), want)
		}
	}
	if names, _ := filepath.Glob(old.mailbox("*/new/*")); len(names) != 0 {
		t.Errorf("delivered although the next hop has no SMTPUTF8: %v", names)
	}
}
