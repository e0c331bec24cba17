package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"mime/quotedprintable"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// report is a message about a message: a text with what the envelope and the plugins said, and
// the message itself, to the byte.
type report struct {
	m        *mail.Message
	fates    []sdk.Fate
	hostname string
	from     mail.Path
	time     time.Time
	seal     string
	boundary string
}

// boundary is a line that nobody who wrote a message could know.
func boundary() string { return "journal-" + strings.ToLower(rand.Text()) }

// dateFormat is RFC 5322 §3.3's date-time.
const dateFormat = "Mon, 2 Jan 2006 15:04:05 -0700"

// header is that of the report for one archive. The id is the gateway's, the addresses are
// ASCII.
func (r *report) header(to mail.Path) mail.Header {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: Journal <%s>\r\nTo: <%s>\r\nSubject: Journal report %s\r\n", r.from, to, word(r.m.Envelope.ID))
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <%s@%s>\r\n", r.time.Format(dateFormat), r.boundary, r.hostname)
	fmt.Fprintf(&b, "%s: %s\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n", sealField, r.seal)
	fmt.Fprintf(&b, "Content-Type: multipart/mixed;\r\n\tboundary=\"%s\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", r.boundary)
	return mail.NewHeader(b.Bytes())
}

// word keeps a header field one field, whatever an id is.
func word(id string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, id[:min(len(id), 64)])
}

// write writes the report's body.
func (r *report) write(w io.Writer) error {
	kind, encoding := "message/rfc822", "8bit"
	if r.m.Envelope.UTF8 {
		kind = "message/global" // RFC 6532 §3.7
	}
	plain, err := wireForm(r.m)
	if err != nil {
		return err
	}
	if !plain { // RFC 2046 §5.2.1: a message part cannot be encoded
		kind, encoding = "application/octet-stream", "base64"
	}
	fmt.Fprintf(w, "--%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", r.boundary)
	text := quotedprintable.NewWriter(w)
	_, err = io.WriteString(text, r.text())
	if cerr := text.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\r\n--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\nContent-Disposition: attachment\r\n\r\n", r.boundary, kind, encoding)
	original, err := r.m.Open()
	if err != nil {
		return err
	}
	defer original.Close()
	if plain {
		_, err = io.Copy(w, original)
	} else {
		err = encode(w, original)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\r\n--%s--\r\n", r.boundary)
	return err
}

// wireForm reports whether a message's lines end in CRLF, without a bare CR, a bare LF or a NUL.
// Those that come over SMTP do.
func wireForm(m *mail.Message) (bool, error) {
	r, err := m.Open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	buf := make([]byte, 32<<10)
	cr := false // the last byte was one
	for {
		n, err := r.Read(buf)
		b := buf[:n]
		if n > 0 && cr {
			if b[0] != '\n' {
				return false, nil
			}
			b = b[1:]
		}
		if n > 0 {
			cr = len(b) > 0 && b[len(b)-1] == '\r'
			if cr {
				b = b[:len(b)-1]
			}
			pairs := bytes.Count(b, []byte("\r\n"))
			if bytes.Count(b, []byte("\r")) != pairs || bytes.Count(b, []byte("\n")) != pairs || bytes.IndexByte(b, 0) >= 0 {
				return false, nil
			}
		}
		if err == io.EOF {
			return !cr, nil
		} else if err != nil {
			return false, err
		}
	}
}

// encode writes base64 in lines of 76 characters (RFC 2045 §6.8).
func encode(w io.Writer, r io.Reader) error {
	in, out := make([]byte, 57*500), make([]byte, 78*500)
	for {
		n, err := io.ReadFull(r, in)
		line := out[:0]
		for b := in[:n]; len(b) > 0; {
			k := min(len(b), 57)
			line = append(base64.StdEncoding.AppendEncode(line, b[:k]), '\r', '\n')
			b = b[k:]
		}
		if _, werr := w.Write(line); werr != nil {
			return werr
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// text says all there is to know, a fact a line: a name, a colon and a value. Lines that
// begin with a space belong to the recipient above them. There is no line for what is not known.
func (r *report) text() string {
	var b strings.Builder
	e, c := &r.m.Envelope, &r.m.Envelope.Client
	say := func(name, value string) {
		if value != "" {
			b.WriteString(name + ": " + line(value) + "\n")
		}
	}
	say("Queue-Id", e.ID)
	say("Gateway", r.hostname)
	say("Time", r.time.UTC().Format(time.RFC3339))
	say("Origin", e.Origin.String())
	say("Sender", "<"+path(e.ReversePath)+">")
	say("Envelope-Id", e.EnvelopeID)
	say("Auth-User", c.User)
	if c.Addr.IsValid() {
		say("Client", c.Addr.Unmap().String())
		say("Client-Class", c.Class.String())
		say("Client-Name", c.Host)
		say("Helo", c.Helo)
		say("Protocol", c.Protocol)
		if c.TLS == "" {
			say("TLS", "none")
		}
	}
	say("TLS", c.TLS)
	say("Listener", c.Listener)
	say("Message-Id", first(r.m.Header.Get("Message-Id")))
	say("Subject", first(r.m.Header.Get("Subject")))
	say("Size", fmt.Sprint(r.m.Size()))
	for _, f := range r.fates {
		if f.To == "" {
			say("Recipients-Not-Listed", f.Why)
			continue
		}
		say("Recipient", f.To)
		if f.Given != f.To {
			say(" Given", f.Given)
		}
		say(" ORCPT", f.ORCPT)
		if f.Becomes != "" {
			say(" Becomes", strings.TrimSuffix(f.Becomes+": "+f.Why, ": "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.m.Scores)) {
		say("Score", fmt.Sprintf("%s = %g", name, r.m.Scores[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(r.m.Notes)) {
		if !strings.HasPrefix(name, "postern/") { // said to us alone
			say("Note", name+" = "+r.m.Notes[name])
		}
	}
	return b.String()
}

func path(p mail.Path) string {
	if p.IsZero() {
		return ""
	}
	return p.String()
}

// first is the beginning of a field, which may be as long as a header.
func first(s string) string { return s[:min(len(s), 1000)] }

// line makes one line of text of what strangers said.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
