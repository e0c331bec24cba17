package smtpd

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postern-mail/postern/sdk/mail"
)

// smuggled is what an attacker wants to be read as commands.
const smuggled = "MAIL FROM:<evil@mx.test>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"

// variants are line ends that some server takes for the end of a message. They are used
// after "line" and before more octets.
var variants = map[string]string{
	"S01 LF.LF":       "\n.\n",
	"S02 LF.CRLF":     "\n.\r\n",
	"S03 CRLF.LF":     "\r\n.\n",
	"S04 CR.CR":       "\r.\r",
	"S04 CR.LF":       "\r.\n",
	"S04 LF.CR":       "\n.\r",
	"S05 CR.CRLF":     "\r.\r\n",
	"S06 CRLF.CR":     "\r\n.\rx",
	"S07 CRLF.CRCRLF": "\r\n.\r\r\n",
	"S07 CRCRLF.CRLF": "\r\r\n.\r\n",
	"S08 NUL before":  "\r\n\x00.\r\n",
	"S08 NUL after":   "\r\n.\x00\r\n",
	"S20 NUL":         "a\x00b\r\n",
}

// refusedData sends a message with a fault and checks that there is one reply, 554 5.6.0,
// then the end of the connection, and nothing queued.
func refusedData(t *testing.T, r *rig, c *client, data string) {
	t.Helper()
	c.do("DATA\r\n", "354")
	c.send(data)
	c.expect("554 5.6.0 ")
	c.closed()
	r.none()
}

func TestS01toS08Smuggling(t *testing.T) {
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c := r.hi()
			c.envelope()
			refusedData(t, r, c, "Subject: x\r\n\r\nline"+v+smuggled+"\r\n.\r\n")
		})
		t.Run("BDAT "+name, func(t *testing.T) {
			if strings.HasPrefix(name, "S08") {
				v = strings.ReplaceAll(v, ".", "")
			}
			r := newRig(t)
			c := r.hi()
			c.envelope()
			c.send("BDAT 5\r\nline " + "BDAT " + itoa(len(v)) + " LAST\r\n" + v + "NOOP\r\n")
			c.expect("250 2.0.0 Ok, 5 octets")
			c.expect("554 5.6.0")
			c.closed()
			r.none()
		})
	}
}

// TestS18NoExemption: relay clients, authenticated ones and other roles get the same.
func TestS18NoExemption(t *testing.T) {
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, &rig{connect: func(c *mail.Client) mail.Status { c.Class = mail.Relay; return mail.Status{} }},
				func(o *Options) { o.Role = Reinjection })
			c := r.hi()
			c.envelope()
			refusedData(t, r, c, "line"+v+smuggled)
			s := newRig(t, withTLS(TLSImplicit), func(o *Options) { o.Role, o.Auth = Submission, AuthRequired })
			d := s.dial()
			d.handshake()
			d.expect("220")
			d.do("EHLO x\r\n", "250")
			d.do("AUTH PLAIN AGpvZQBzZXNhbWU=\r\n", "235")
			d.envelope()
			refusedData(t, s, d, "line"+v+smuggled)
		})
	}
}

func TestS09DotsThatAreData(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	c.do("a\r\n. \r\n.\t\r\n..\r\n...\r\n.a\r\n.\r\n", "250")
	// RFC 5321 §4.5.2: a dot at the start of a line with more on it is dropped.
	r.only("a\r\n \r\n\t\r\n.\r\n..\r\na\r\n")
}

func TestS10UnicodeLineEnds(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.do("MAIL FROM:<ü@client.test> SMTPUTF8\r\n", "250")
	c.do("RCPT TO:<b@mx.test>\r\n", "250")
	body := ""
	for _, e := range []string{"\u0085", "\u2028", "\u2029", "\v", "\f"} {
		body += "a" + e + "." + e + "b\r\n"
	}
	c.do("DATA\r\n", "354")
	c.do(body+".\r\n", "250")
	if m := r.only(body); m.env.Client.Protocol != "UTF8SMTP" || !m.env.UTF8 {
		t.Errorf("envelope %+v", m.env)
	}
}

func TestS11SplitEnd(t *testing.T) {
	const msg = "Subject: x\r\n\r\n..\r\nx\r\n.\r\n"
	const want = "Subject: x\r\n\r\n.\r\nx\r\n"
	t.Run("octets", func(t *testing.T) {
		r := newRig(t)
		c := r.hi()
		c.envelope()
		c.do("DATA\r\n", "354")
		for i := range len(msg) {
			c.send(msg[i : i+1])
		}
		c.expect("250")
		c.do("NOOP\r\n", "250")
		r.only(want)
	})
	t.Run("TLS records", func(t *testing.T) {
		r := newRig(t, withTLS(TLSStart))
		c := r.hi()
		c.startTLS()
		c.do("EHLO x\r\n", "250")
		for i := range len(msg) + 1 {
			c.envelope()
			c.do("DATA\r\n", "354")
			c.send(msg[:i])
			c.send(msg[i:])
			c.expect("250")
		}
		for i, m := range r.queued() {
			if m.data != want {
				t.Errorf("split at %d: %q", i, m.data)
			}
		}
		if n := len(r.queued()); n != len(msg)+1 {
			t.Errorf("%d messages", n)
		}
	})
}

func TestS12OverSizeThenBadDot(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	c.send(strings.Repeat("x", 9000) + "\r\n" + strings.Repeat("y", 9000) + "\r\n.\nHELP\r\n.\r\n")
	c.expect("552 5.3.4")
	c.closed()
	r.none()

	c = r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	c.do(strings.Repeat("x\r\n", 9000)+"HELP\r\n.\r\n", "552 5.3.4")
	c.do("RCPT TO:<b@mx.test>\r\n", "503")
	c.do("NOOP\r\n", "250")
	r.none()
}

// TestS13RefusedEarly: what is left of a message that Intake did not want to read is not
// read as commands.
func TestS13RefusedEarly(t *testing.T) {
	early := func(_ *mail.Envelope, rd io.Reader) (Receipt, error) {
		io.ReadFull(rd, make([]byte, 10))
		return Receipt{}, mail.Permanent(554, 7, 1, "Refused by the header")
	}
	r := &rig{}
	r.receive = func(_ ctx, e *mail.Envelope, rd io.Reader) (Receipt, error) { return early(e, rd) }
	startRig(t, r)
	c := r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	c.do("Subject: x\r\n\r\n"+smuggledBody+".\r\n", "554 5.7.1 Refused by the header")
	c.do("NOOP\r\n", "250 2.0.0 Ok")
	c.envelope()
	c.do("DATA\r\n", "354")
	c.send("Subject: x\r\n\r\nline\n.\n" + smuggled)
	c.expect("554 5.7.1 Refused by the header")
	c.closed()
	r.none()
}

const smuggledBody = "MAIL FROM:<evil@mx.test>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n"

func TestS19CommandLineEnds(t *testing.T) {
	r := newRig(t)
	for _, cmd := range []string{"MAIL FROM:<a@b.test>\nRCPT TO:<b@mx.test>\n", "MAIL FROM:<a@b.test>\nRCPT TO:<b@mx.test>\r\n", "\n", "NOOP\n"} {
		c := r.hi()
		c.do(cmd, "500 5.5.2")
		c.closed()
	}
	c := r.hi()
	c.do("NOOP\rRSET\r\n", "500 5.5.2")
	c.do("NOOP\r\r\n", "500 5.5.2")
	c.do("\r\n", "500 5.5.2")
	c.do("RCPT TO:<b@mx.test>\r\n", "503 5.5.1")
	c.do("NOOP\r\n", "250 2.0.0 Ok")
}

func TestS20NUL(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.do("MAIL FROM:<a@client.test>\r\n", "250")
	c.do("RCPT TO:<a\x00b@mx.test>\r\n", "501 5.5.2")
	c.do("RCPT TO:<\"a\x00b\"@mx.test>\r\n", "501 5.5.2")
	c.do("RCPT TO:<b@mx.test>\r\n", "250")
	refusedData(t, r, c, "Subject: a\x00b\r\n\r\n.\r\n")
}

func TestS21BDATLineFeeds(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.envelope()
	c.do("BDAT 12 LAST\r\nSubject: x\n\n", "554 5.6.0 Message refused: bare LF in a message")
	c.closed()
	r.none()
}

// TestS21BDATAcrossChunks: a CRLF may be split by a chunk border, a bare CR may not hide there.
func TestS21BDATAcrossChunks(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.envelope()
	c.do("BDAT 2\r\na\rBDAT 3\r\n\nb\rBDAT 1 LAST\r\n\n", "250", "250", "250 2.0.0 Ok: queued as q1")
	r.only("a\r\nb\r\n")
	for _, cmds := range []string{"BDAT 2\r\na\rBDAT 1 LAST\r\nb", "BDAT 2 LAST\r\na\r", "BDAT 1\r\n\rBDAT 0 LAST\r\n"} {
		d := r.hi()
		d.envelope()
		d.send(cmds)
		if got := d.reply(); strings.HasPrefix(got, "250") {
			d.expect("554 5.6.0")
		} else if !strings.HasPrefix(got, "554 5.6.0") {
			t.Errorf("%q: %q", cmds, got)
		}
		d.closed()
	}
	r.only("a\r\nb\r\n")
}

func TestS22Replies(t *testing.T) {
	long := strings.Repeat("x", 2000)
	r := startRig(t, &rig{
		sender: func(_ *mail.Client, p mail.Path, _ int64) mail.Status {
			return mail.Permanent(550, 7, 1, "no \r\n250 "+p.Local+long)
		},
	})
	c := r.dial()
	c.expect("220")
	c.do("EHLO \x1b[2J\r\n", "501 5.5.2")
	c.do("EHLO a\rb\r\n", "500 5.5.2")
	c.do("EHLO ü.test\r\n", "501 5.5.2")
	c.do("EHLO <script>\r\n", "501 5.5.2")
	c.do("EHLO "+strings.Repeat("a", 256)+"\r\n", "501 5.5.2")
	c.do("EHLO "+strings.Repeat("a", 255)+"\r\n", "250")
	c.do("MAIL FROM:<\"%s%n{}\\\"\"@x.test>\r\n", "550 5.7.1 no   250 %s%n{}")
	c.do("MAIL FROM:<ü@x.test> SMTPUTF8\r\n", "550 5.7.1 no   250 ??")
	c.do("MAIL FROM:<"+strings.Repeat("y", 1500)+">\r\n", "501 5.1.7")
	c.do("XYZZY \x1b]0;a\r\n", "501 5.5.2")
}

// TestBodyReader: the reader is a well-behaved one.
func TestBodyReader(t *testing.T) {
	data := strings.Repeat("..0123456789\r\n", 500)
	want := strings.ReplaceAll(data, "..", ".")
	r := &rig{}
	r.receive = func(_ ctx, e *mail.Envelope, rd io.Reader) (Receipt, error) {
		if err := iotest.TestReader(rd, []byte(want)); err != nil {
			t.Error(err)
		}
		return r.record(e, strings.NewReader(want))
	}
	startRig(t, r)
	c := r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	c.do(data+".\r\n", "250")
	r.only(want)
}
