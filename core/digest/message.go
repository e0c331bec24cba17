package digest

import (
	"bytes"
	"fmt"
	"mime/quotedprintable"
	"strings"
	"time"
	"unicode"

	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/sdk/mail"
)

// message writes a digest: plain text in ASCII characters on the wire. What is listed was
// written by strangers; it is made harmless.
func (d *Digest) message(l *list) (mail.Header, []byte) {
	what := "1 message is"
	if l.total > 1 {
		what = fmt.Sprintf("%d messages are", l.total)
	}
	var h bytes.Buffer
	fmt.Fprintf(&h, "From: Quarantine of %s <%s>\r\n", d.Hostname, d.Postmaster)
	fmt.Fprintf(&h, "To: %s\r\n", l.to)
	fmt.Fprintf(&h, "Subject: %s held for you\r\n", what)
	h.WriteString("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")

	var text strings.Builder
	fmt.Fprintf(&text, "%s held for %s in the quarantine of %s.\r\n\r\n", what, l.to, d.Hostname)
	fmt.Fprintf(&text, "To have one delivered, answer this message, or write to %s, and give its ID.\r\n", d.Postmaster)
	text.WriteString("Whoever runs the gateway lets it go with: postern quarantine release ID\r\n")
	text.WriteString("What nobody asks for is deleted after the day that is given with it.\r\n")
	for i := range l.held {
		d.item(&text, &l.held[i])
	}
	if more := l.total - len(l.held); more > 0 {
		fmt.Fprintf(&text, "\r\nAnd %d more.\r\n", more)
	}
	var body bytes.Buffer
	w := quotedprintable.NewWriter(&body)
	w.Write([]byte(text.String())) // into memory
	w.Close()
	return mail.NewHeader(h.Bytes()), body.Bytes()
}

func (d *Digest) item(w *strings.Builder, h *admin.Quarantined) {
	line := func(name, value string, most int) {
		fmt.Fprintf(w, "%-9s %s\r\n", name+":", harmless(value, most))
	}
	w.WriteString("\r\n")
	author := h.Author
	if author == "" {
		author = h.From
	}
	line("From", author, 120)
	if h.From != "" && !strings.Contains(author, h.From) {
		line("Sent by", h.From, 120)
	}
	line("Subject", h.Subject, 120)
	line("Date", h.Held.In(d.Location).Format("Mon, 2 Jan 2006 15:04 MST"), 60)
	line("Why", h.Reason, 160)
	line("ID", h.ID, 60)
	line("Until", h.Expires.In(d.Location).Format(time.DateOnly), 60)
}

// harmless is one line of a stranger's text with nothing in it that a mail program would take
// for markup or a link, or that changes how the rest looks.
func harmless(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '<':
			return '‹'
		case r == '>':
			return '›'
		case unicode.IsSpace(r) || unicode.IsControl(r):
			return ' '
		case unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp):
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	s = strings.ReplaceAll(s, "://", "[:]//")
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	if s == "" {
		return "(none)"
	}
	return s
}
