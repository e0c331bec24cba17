package main_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// copies is a gateway for example.org (and for elsewhere.test, which is not archived) whose
// mail goes to one sink, with copies to an archive behind another.
type copies struct {
	*gateway
	out, archive *smtptest.Sink
}

// settings are more of the plugin's, after is what follows.
func newCopies(t testing.TB, settings, after string) copies {
	t.Helper()
	c := copies{out: smtptest.New(t, smtptest.Options{}), archive: smtptest.New(t, smtptest.Options{})}
	c.gateway = start(t, strings.Replace(basics, "role = \"mx\"", "role = \"mx\"\ndsn = true", 1)+fmt.Sprintf(`
[[domain]]
name = "example.org"
recipients = "any"
deliver = "smtp://%[1]s"
[[domain]]
name = "elsewhere.test"
aliases = ["example.net"]
recipients = "any"
deliver = "smtp://%[1]s"
[[domain]]
name = "archive.test"
recipients = "any"
deliver = "smtp://%[2]s"
[[plugin]]
name = "bcc"
[plugin.settings]
copies = {"example.org" = "keep@archive.test"}
%[3]s
%[4]s`, c.out.Addr(), c.archive.Addr(), settings, after))
	return c
}

// Every message that the domain receives or sends is copied once, to the byte, with
// reverse-path postmaster; other mail is not; nothing in a message tells of its copy.
func TestBCCCopiesEverything(t *testing.T) {
	t.Parallel()
	g := newCopies(t, "", "")
	for i, tc := range []struct {
		from    string
		to      []string
		reverse string // of the copy; "-": none
	}{
		{"x@example.net", []string{"bob@example.org"}, "postmaster@example.org"},
		{"alice@example.org", []string{"y@elsewhere.test"}, "postmaster@example.org"},
		{"x@example.net", []string{"y@elsewhere.test"}, "-"},
		{"alice@example.org", []string{"bob@example.org", "y@elsewhere.test", "carol@example.org"}, "postmaster@example.org"},
		{"", []string{"bob@example.org"}, ""},
		{"x@example.net", []string{"keep@archive.test"}, "-"},                    // not one of the domain
		{"alice@example.org", []string{"keep@archive.test"}, "-"},                // it gets the message anyway
		{"x@example.net", []string{"BOB@EXAMPLE.ORG"}, "postmaster@example.org"}, // domains have no case
	} {
		outs, kept := len(g.out.Messages()), len(g.archive.Messages())
		text := fmt.Sprintf("Subject: number %d\r\nX-Odd: \xff  \r\n\r\n.body %d\r\n", i, i)
		args := []string{"--from", tc.from, "--to", strings.Join(tc.to, ","), "--no-data-fixup", "--data", "@" + wireFile(t, text)}
		if tc.from == "" {
			args[1] = "<>"
		}
		_, id := swaksOK(t, g.addr[0], args...)
		direct := tc.to[0] == "keep@archive.test"
		var message smtptest.Message
		if direct {
			message = g.archive.Wait(t, kept+1, patience)[kept]
			kept++
		} else {
			message = g.out.Wait(t, outs+1, patience)[outs]
		}
		untouched(t, message.Data, []byte(text))
		if message.From != tc.from || strings.Join(message.To, ",") != strings.Join(tc.to, ",") && !strings.EqualFold(message.To[0], tc.to[0]) {
			t.Errorf("%d: envelope <%s> %v", i, message.From, message.To)
		}
		if !direct && (bytes.Contains(message.Raw, []byte("archive")) || strings.Contains(strings.Join(append(message.Rcpt, message.Mail), " "), "archive")) {
			t.Errorf("%d: the message tells of its copy:\n%s", i, message.Raw)
		}
		if tc.reverse == "-" {
			g.log.wait(t, "delivered", has("id", id))
			continue
		}
		cp := g.archive.Wait(t, kept+1, patience)[kept]
		if cp.From != tc.reverse || len(cp.To) != 1 || cp.To[0] != "keep@archive.test" {
			t.Errorf("%d: copy from <%s> to %v", i, cp.From, cp.To)
		}
		if !bytes.Equal(cp.Data, message.Data) {
			t.Errorf("%d: the copy differs:\n%q\n%q", i, cp.Data, message.Data)
		}
	}
	g.drained()
	if got := len(g.archive.Messages()); got != 5+2 {
		t.Errorf("%d messages at the archive, want 7", got)
	}
}

// A report to the sender, of failure or of success, knows nothing of the copy, and is not
// copied itself.
func TestBCCNotInReports(t *testing.T) {
	t.Parallel()
	g := newCopies(t, "", "")
	g.out.On("RCPT", "550 5.1.1 no such user")
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	for i, rcpts := range [][]string{
		{"RCPT TO:<nobody@example.org>", "RCPT TO:<bob@example.org>"},
		{"RCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE"},
	} {
		c.cmd(250, "MAIL FROM:<alice@example.org> ENVID=abc%d", i)
		for _, r := range rcpts {
			c.cmd(250, "%s", r)
		}
		c.cmd(354, "DATA")
		c.send("Subject: x\r\n\r\nbody\r\n.\r\n")
		c.expect(250)
		g.archive.Wait(t, i+1, patience)
		if i == 1 {
			break // the sink takes over the duty to report success (RFC 3461)
		}
		messages := g.out.Wait(t, 2, patience)
		for _, m := range messages {
			if bytes.Contains(m.Raw, []byte("archive")) {
				t.Errorf("tells of the copy:\n%s", m.Raw)
			}
			if m.From == "" {
				if n := parseReport(t, m); len(n.recipients) != 1 || m.To[0] != "alice@example.org" {
					t.Errorf("report to %v on %v", m.To, n.recipients)
				}
			}
		}
	}
	for _, m := range g.archive.Messages() {
		if m.From == "" {
			t.Errorf("a report was copied:\n%s", m.Data)
		}
		if strings.Contains(strings.Join(m.Rcpt, ""), "SUCCESS") {
			t.Errorf("the copy asks for a report of success: %v", m.Rcpt)
		}
	}
}

// An archive that refuses a copy is told of to the postmaster, or the sender where that is
// wanted; the message itself is delivered.
func TestBCCArchiveRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ settings, told string }{
		{"", "postmaster@example.org"},
		{`bounce_to = "sender"`, "alice@elsewhere.test"}, // which is alice@example.net
	} {
		t.Run(tc.told, func(t *testing.T) {
			t.Parallel()
			g := newCopies(t, tc.settings, "")
			g.archive.Always("RCPT", "550 5.2.1 archive closed")
			_, id := swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org")
			g.log.wait(t, "delivered", has("id", id))
			var reports, mails int
			for _, m := range g.out.Wait(t, 2, patience) {
				if m.From != "" {
					mails++
					continue
				}
				reports++
				n := parseReport(t, m)
				if m.To[0] != tc.told || n.recipients[0].Get("Final-Recipient") != "rfc822; keep@archive.test" || n.recipients[0].Get("Status") != "5.2.1" {
					t.Errorf("report to %v: %v", m.To, n.recipients)
				}
			}
			if reports != 1 || mails != 1 {
				t.Errorf("%d reports, %d mails", reports, mails)
			}
			g.drained()
		})
	}
}

// A copy of a bounce that the archive refuses makes no bounce.
func TestBCCCopyOfBounce(t *testing.T) {
	t.Parallel()
	g := newCopies(t, "", "")
	g.archive.Always("RCPT", "550 5.2.1 archive closed")
	_, id := swaksOK(t, g.addr[0], "--from", "<>", "--to", "bob@example.org")
	g.log.wait(t, "failed", has("to", "keep@archive.test"))
	g.log.wait(t, "delivered", has("id", id))
	if n := g.log.count("dsn", nil); n != 0 {
		t.Errorf("%d reports", n)
	}
}

// A message that is refused makes no copy, wherever the plugin that refuses it stands; one
// that is refused for one recipient only is copied.
func TestBCCNoCopyOfRefused(t *testing.T) {
	t.Parallel()
	refuse := filepath.Join(t.TempDir(), "refuse")
	cmd := exec.Command("go", "build", "-o", refuse, "./testdata/plugins/refuse")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	g := newCopies(t, "", fmt.Sprintf("[[plugin]]\nname = \"refuse\"\ncommand = %q\n", refuse))
	out, code := swaks(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org", "--header", "Subject: refuse")
	if code == 0 || !strings.Contains(out, "550 5.7.1 Refused by a plugin") {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	_, id := swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org", "--header", "Subject: fine")
	g.log.wait(t, "delivered", has("id", id))
	all := g.archive.Wait(t, 1, patience)
	if len(all) != 1 || !bytes.Contains(all[0].Data, []byte("Subject: fine\r\n")) {
		t.Errorf("%d copies, the first\n%s", len(all), all[0].Data)
	}
	swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org,carol@example.org", "--header", "Subject: refuse bob")
	if all = g.archive.Wait(t, 2, patience); len(all) != 2 || !bytes.Contains(all[1].Data, []byte("Subject: refuse bob\r\n")) {
		t.Errorf("%d copies", len(all))
	}
}
