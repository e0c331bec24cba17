package main_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

type journaled struct {
	*gateway
	out, archive *smtptest.Sink
}

// newJournaled is a gateway for example.org with plugins before and after the journal, which
// goes to another sink.
func newJournaled(t testing.TB, before, after string) journaled {
	t.Helper()
	j := journaled{out: smtptest.New(t, smtptest.Options{}), archive: smtptest.New(t, smtptest.Options{})}
	j.gateway = start(t, strangers+fmt.Sprintf(`
[[domain]]
name = "example.org"
recipients = "any"
deliver = "smtp://%s"
[[domain]]
name = "archive.test"
recipients = "any"
deliver = "smtp://%s"
%s
[[plugin]]
name = "journal"
[plugin.settings]
to = "keep@archive.test"
%s`, j.out.Addr(), j.archive.Addr(), before, after))
	return j
}

// readJournal takes a report apart.
func readJournal(t testing.TB, m smtptest.Message) (text string, original []byte) {
	t.Helper()
	msg, err := netmail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(msg.Body, params["boundary"])
	var parts [][]byte
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, b)
	}
	if len(parts) != 2 {
		t.Fatalf("%d parts:\n%s", len(parts), m.Data)
	}
	return string(parts[0]), parts[1]
}

func refusing(t testing.TB) string {
	t.Helper()
	refuse := filepath.Join(t.TempDir(), "refuse")
	cmd := exec.Command("go", "build", "-o", refuse, "./testdata/plugins/refuse")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return fmt.Sprintf("[[plugin]]\nname = \"refuse\"\ncommand = %q\n", refuse)
}

// One report of a message that plugins split, with all recipients and the message to the
// byte; large messages as well; none of what is refused, before or after.
func TestJournal(t *testing.T) {
	t.Parallel()
	g := newJournaled(t, puppet(t, "p", "", ""), refusing(t))
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example")
	id := c.message("alice@a.test", []string{"bob@example.org", "carol@example.org", "dave@example.org"}, "X-Do: @0 verdict quarantine\r\nX-Do: @2 insert 0 X-Dave 1\r\nMessage-ID: <1@a.test>\r\nSubject: hello\r\n\r\nhello\r\n.. dots\r\n")
	report := g.archive.Wait(t, 1, patience)[0]
	if report.From != "postmaster@example.org" || strings.Join(report.To, " ") != "keep@archive.test" {
		t.Errorf("report from %s to %v", report.From, report.To)
	}
	text, original := readJournal(t, report)
	for _, want := range []string{"Queue-Id: " + id, "Sender: <alice@a.test>", "Client: 127.0.0.1", "Client-Class: stranger", "Helo: client.example", "Protocol: ESMTP", "TLS: none", "Message-Id: <1@a.test>",
		"Recipient: bob@example.org\r\n Becomes: quarantine: plugin p: ", "Recipient: carol@example.org\r\n", "Recipient: dave@example.org\r\n"} {
		if !strings.Contains("\r\n"+text, "\r\n"+want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	arrived := g.out.Wait(t, 2, patience)
	if !bytes.Equal(arrived[0].Data, original) && !bytes.Equal(arrived[1].Data, original) {
		t.Errorf("the report has\n%s\nand this arrived\n%s", original, arrived[0].Data)
	}
	for _, m := range arrived {
		if bytes.Contains(m.Raw, []byte("archive")) {
			t.Errorf("the message tells of its report:\n%s", m.Raw)
		}
	}

	c.cmd(250, "MAIL FROM:<alice@a.test>")
	c.cmd(250, "RCPT TO:<bob@example.org>")
	c.cmd(354, "DATA")
	c.send("Subject: refuse\r\n\r\nx\r\n.\r\n")
	c.expect(550)

	large := strings.Repeat("0123456789 0123456789 0123456789 0123456789 0123456789\r\n", 40_000)
	c.message("alice@a.test", []string{"bob@example.org"}, "Subject: large\r\n\r\n"+large)
	_, original = readJournal(t, g.archive.Wait(t, 2, patience)[1])
	if got := g.out.Wait(t, 3, patience)[2].Data; !bytes.Equal(got, original) {
		t.Errorf("%d bytes of %d", len(original), len(got))
	}
	c.message("", []string{"bob@example.org"}, "Subject: a bounce\r\n\r\nx")
	if m := g.archive.Wait(t, 3, patience)[2]; m.From != "" {
		t.Errorf("the report of a bounce is from %s", m.From)
	}
	last := []string{
		c.message("", []string{"postmaster@example.org"}, "Subject: a bounce of a report\r\n\r\nx"),
		c.message("eve@a.test", []string{"keep@archive.test"}, "Subject: to the archive\r\n\r\nx"),
		c.message("alice@a.test", []string{"bob@example.org"}, strings.ReplaceAll(string(report.Data), "\r\n.", "\r\n..")), // it comes back
	}
	if m := g.archive.Wait(t, 4, patience)[3]; m.From != "eve@a.test" {
		t.Errorf("from %s:\n%s", m.From, m.Data)
	}
	for _, id := range last {
		g.log.wait(t, "delivered", has("id", id))
	}
	for _, q := range g.queue() {
		if q.State != "held" || q.Recipient != "bob@example.org" {
			t.Errorf("the queue has %+v", q)
		}
	}
	if n := len(g.archive.Messages()); n != 4 {
		t.Errorf("%d messages at the archive", n)
	}
}

// A report that is refused is told of to the postmaster, in a DSN of which there is no report;
// one that waits is to be seen in the queue as a copy and holds nothing up. Where bcc copies as
// well neither copies the other.
func TestJournalRefused(t *testing.T) {
	t.Parallel()
	const bcc = "[[plugin]]\nname = \"bcc\"\n[plugin.settings]\ncopies = {\"example.org\" = \"copy@example.org\"}\n"
	g := newJournaled(t, bcc, strings.Replace(bcc, `name = "bcc"`, "name = \"bcc2\"\nuse = \"bcc\"", 1))
	g.archive.Always("RCPT", "451 4.3.0 later")
	id := g.deliver("alice@a.test", []string{"bob@example.org"}, "Subject: x\r\n\r\nx")
	g.log.wait(t, "delivered", has("id", id))
	var waiting []queued
	for _, q := range g.queue() {
		if q.Recipient == "keep@archive.test" {
			waiting = append(waiting, q)
		}
	}
	if len(waiting) != 1 || waiting[0].From != "postmaster@example.org" {
		t.Fatalf("the queue has %+v", waiting)
	}
	if out := g.must("queue", "show", waiting[0].ID); !strings.Contains(out, "a version of "+id) || !strings.Contains(out, "a copy made by a plugin") {
		t.Errorf("queue show says\n%s", out)
	}
	g.archive.Always("RCPT", "550 5.2.1 archive closed")
	g.must("queue", "retry", "--all")
	g.log.wait(t, "failed", has("to", "keep@archive.test"))
	var dsn int
	for _, m := range g.out.Wait(t, 4, patience) {
		switch {
		case m.From == "":
			dsn++
			if m.To[0] != "postmaster@example.org" {
				t.Errorf("report to %v", m.To)
			}
		case bytes.Contains(m.Data, []byte("Journal report")):
			t.Errorf("the journal was copied to %v", m.To)
		}
	}
	g.drained()
	if n := len(g.out.Messages()); n != 4 || dsn != 1 { // the message, a copy each of bcc and bcc2, the DSN
		t.Errorf("%d messages, %d reports", n, dsn)
	}
	if n := g.log.count("failed", has("to", "keep@archive.test")); n != 1 {
		t.Errorf("%d journal reports", n)
	}
}
