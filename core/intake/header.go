package intake

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"io"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// dateFormat is RFC 5322 §3.3's date-time.
const dateFormat = "Mon, 2 Jan 2006 15:04:05 -0700"

// fix is the one place where the header of a message that comes in is changed: a Received
// field is added, what only we may say is removed, and what a submission lacks is added.
func (m *receiving) fix(h mail.Header) (mail.Header, error) {
	hops := 0
	ours := false
	bcc := false
	for _, f := range h.Fields {
		switch {
		case strings.EqualFold(f.Name, "Received"):
			hops++
		case strings.EqualFold(f.Name, "Bcc"):
			bcc = true
		case claimsUs(f, m.in.Hostname):
			ours = true
		}
	}
	if hops > m.rules.Hops { // RFC 5321 §6.3
		return h, mail.Permanent(554, 4, 6, "Too many Received fields: the message is in a loop")
	}
	if ours {
		h.RemoveIf(func(f mail.Field) bool { return claimsUs(f, m.in.Hostname) })
	}
	if m.env.Origin == mail.Submitted && m.env.Client.Class != mail.Relay || m.env.Origin == mail.Internal || m.env.Client.User != "" {
		m.complete(&h, bcc)
	}
	bare := len(h.Block()) == 0 // then ours comes with its separator
	h.PrependRaw(m.received())
	if !bare && !h.Separated() && m.fieldsFollow() {
		h.Separate()
	}
	return h, nil
}

// fieldsFollow reports whether something that looks like a field stands in the body before
// its first blank line. Where a message lacks the blank line after its header, some readers
// go on to look for fields there, and would find what we would have removed (H-06). A message
// that gives them nothing to find passes as it is.
func (m *receiving) fieldsFollow() bool {
	body, err := m.body.Open()
	if err != nil {
		return true
	}
	defer body.Close()
	r := bufio.NewReaderSize(body, 4096)
	for begin := true; ; {
		line, err := r.ReadSlice('\n')
		if begin && (len(line) == 0 || string(line) == "\r\n") {
			return false
		}
		if begin && mail.IsField(line) {
			return true
		}
		if err != nil && err != bufio.ErrBufferFull {
			return err != io.EOF // what cannot be read is not trusted
		}
		begin = err == nil
	}
}

// complete does what RFC 6409 §8 asks of a submission server.
func (m *receiving) complete(h *mail.Header, bcc bool) {
	if bcc {
		h.Remove("Bcc", -1)
	}
	if !h.Has("Date") {
		h.Prepend("Date", m.now.Format(dateFormat))
	}
	if !h.Has("Message-ID") {
		h.Prepend("Message-ID", messageID(m.in.Hostname))
	}
}

func messageID(hostname string) string {
	var b [12]byte
	rand.Read(b[:])
	return "<" + hex.EncodeToString(b[:]) + "@" + hostname + ">"
}

// claimsUs reports whether only we may say what f says: our own fields, and results of
// authentication in our name (RFC 8601 §5).
func claimsUs(f mail.Field, hostname string) bool {
	if len(f.Name) > 10 && strings.EqualFold(f.Name[:10], "X-Postern-") {
		return true
	}
	return strings.EqualFold(f.Name, "Authentication-Results") && mail.ClaimsResults(f.Value(), hostname)
}

// received makes our trace field (RFC 5321 §4.4).
func (m *receiving) received() []byte {
	c := &m.env.Client
	b := make([]byte, 0, 320)
	b = append(b, "Received: from "...)
	b = append(b, heloName(c.Helo)...)
	if c.Addr.IsValid() {
		b = append(b, " ("...)
		if host, err := mail.ParseDomain(c.Host); err == nil {
			b = append(b, host.String()...)
			b = append(b, ' ')
		}
		b = append(b, '[')
		if addr := c.Addr.Unmap(); addr.Is6() {
			b = append(b, "IPv6:"...)
			b = addr.WithZone("").AppendTo(b)
		} else {
			b = addr.AppendTo(b)
		}
		b = append(b, "])"...)
	}
	b = append(b, "\r\n\tby "...)
	b = append(b, m.in.Hostname...)
	b = append(b, " (Postern) with "...)
	b = append(b, c.Protocol...)
	if c.TLS != "" {
		b = append(b, " ("...)
		b = append(b, comment(c.TLS)...)
		b = append(b, ')')
	}
	b = append(b, "\r\n\tid "...)
	b = append(b, m.env.ID...)
	// One recipient only: with more, the field would tell each of the others (RFC 5321 §7.2).
	if len(m.env.Recipients) == 1 {
		if to := m.env.Recipients[0].Path.String(); len(to) < 200 && (m.env.UTF8 || m.env.Recipients[0].Path.IsASCII()) {
			b = append(b, "\r\n\tfor <"...)
			b = append(b, to...)
			b = append(b, '>')
		}
	}
	b = append(b, ";\r\n\t"...)
	b = m.now.AppendFormat(b, dateFormat)
	return append(b, "\r\n"...)
}

// heloName returns what the client called itself if it is a domain or a literal, else a
// harmless stand-in: nothing a client says can become a field or a comment of ours.
func heloName(s string) string {
	d, err := mail.ParseDomain(s)
	if err != nil {
		return "invalid.helo"
	}
	return d.String()
}

// comment keeps what may stand in a comment.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '(' || r == ')' || r == '\\' {
			return -1
		}
		return r
	}, s)
}
