package main_test

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// H-06: mail that lacks its header, its body or what is between them passes all filters together as its
// sender wrote it, below what they add.
func TestH06BareMessages(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]func(*testing.T, *smtptest.Sink) victims{"submitted": submitted, "incoming": incoming} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := smtptest.New(t, smtptest.Options{})
			g := line(t, sink)
			c := dial(t, g.addr[0])
			c.cmd(250, "EHLO client.example.net")
			for i, tt := range []struct{ name, text, want string }{
				{"nothing", "", "\r\n"}, // the end of our fields
				{"a blank line", "\r\n", "\r\n"},
				{"no blank line", "Subject: x\r\nX-Kept:  as it is \r\n", "Subject: x\r\nX-Kept:  as it is \r\n"},
				{"no body", letterHead + "\r\n", letterHead + "\r\n"},
				{"no header", "\r\ntext\r\n\r\nmore\r\n", "\r\ntext\r\n\r\nmore\r\n"},
				{"a body alone", "text\r\nalone\r\n", "\r\ntext\r\nalone\r\n"}, // else the first line would be a field of ours
				{"a space first", " text\r\nSubject: x\r\n\r\nmore\r\n", "\r\n text\r\nSubject: x\r\n\r\nmore\r\n"},
			} {
				c.cmd(250, "MAIL FROM:<alice@example.net>")
				c.cmd(250, "RCPT TO:<bob@example.org>")
				c.cmd(354, "DATA")
				c.send(tt.text + ".\r\n")
				c.expect(250)
				m := strings.Replace(string(sink.Wait(t, i+1, patience)[i].Data), "X-Filtered: yes\r\n", "", 1) // of the filter outside
				if top, ok := strings.CutSuffix(m, tt.want); !ok || !strings.HasSuffix(top, "\r\n") || strings.Contains(top, "\r\n\r\n") || !strings.Contains(top, "Received: from client.example.net") {
					t.Errorf("%s: arrived was\n%q", tt.name, m)
				}
			}
		})
	}
}
