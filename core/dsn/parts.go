package dsn

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk/mail"
)

// part is one part of the report.
type part struct {
	description, typ string
	content          []byte
}

func contains(parts []part, s string) bool {
	for _, p := range parts {
		if bytes.Contains(p.content, []byte(s)) {
			return true
		}
	}
	return false
}

// writer writes the parts of one report.
type writer struct {
	o        *Options
	r        *Report
	kind     Action
	utf8     bool // the forms of RFC 6533
	boundary string
}

func (w *writer) subject() string {
	switch {
	case w.kind.failure():
		return "Undelivered mail: your message could not be delivered"
	case w.kind == Delayed:
		return "Delayed mail: your message has not been delivered yet"
	}
	if w.kind == Relayed {
		return "Relayed mail: your message has been passed on"
	}
	return "Delivered mail: your message has arrived"
}

// text is the part for people.
func (w *writer) text() part {
	var b bytes.Buffer
	line := func(format string, args ...any) {
		b.WriteString(fold(w.clean(fmt.Sprintf(format, args...)), ""))
	}
	line("This is the mail system at %s.", w.o.Hostname)
	b.WriteString("\r\n")
	switch {
	case w.kind.failure():
		line("Your message could not be delivered to the recipients below. It will not be tried again.")
	case w.kind == Delayed:
		line("Your message has not been delivered yet to the recipients below. You do not need to send it again: it will be tried further.")
	default:
		line("You asked to be told: your message has been taken for the recipients below.")
	}
	b.WriteString("\r\n")
	for i := range w.r.Recipients {
		w.person(&b, &w.r.Recipients[i])
	}
	if subject := w.r.Header.Get("Subject"); subject != "" && w.plain(subject) {
		line("Subject of your message: %s", cut(subject, 200))
	}
	if w.r.ID != "" {
		line("Queue id: %s", w.r.ID)
	}
	b.WriteString("\r\n")
	line("If you need help, write to %s and include this report.", w.address(w.o.Postmaster))
	charset := "us-ascii"
	if !isASCII(b.Bytes()) {
		charset = "utf-8"
	}
	return part{"Notification", "text/plain; charset=" + charset, b.Bytes()}
}

// person writes what became of one recipient, for people.
func (w *writer) person(b *bytes.Buffer, r *Recipient) {
	shown := r.Path
	if !r.Original.IsZero() {
		shown = r.Original
	}
	fmt.Fprintf(b, "<%s>\r\n", w.address(shown))
	b.WriteString(fold("    "+w.clean(reason(r)), "    "))
	if r.Action == Delayed && !r.WillRetryUntil.IsZero() {
		b.WriteString(fold("    It will be tried until "+r.WillRetryUntil.Format(time.RFC1123Z)+".", "    "))
	}
	b.WriteString("\r\n")
}

// reason says in words what happened to a recipient.
func reason(r *Recipient) string {
	switch r.Action {
	case Relayed:
		return "was given to a server that does not report on delivery"
	case Delivered:
		return "delivered"
	}
	said := r.Status.Text
	if r.Status.Remote != "" {
		said = fmt.Sprintf("host %s said: %s", r.Status.Remote, r.Status.Error())
	}
	if r.Action == Expired {
		if said != "" {
			said = " The last attempt: " + said
		}
		return "gave up after trying for too long." + said
	}
	return said
}

// status is the part for machines: one block about the message, one for each recipient.
func (w *writer) status() part {
	var b bytes.Buffer
	field := func(name, value string) {
		b.WriteString(fold(name+": "+value, " "))
	}
	field("Reporting-MTA", "dns; "+w.o.Hostname)
	if w.r.EnvelopeID != "" {
		field("Original-Envelope-Id", printable(cut(w.r.EnvelopeID, 400)))
	}
	if !w.r.Arrival.IsZero() {
		field("Arrival-Date", w.r.Arrival.Format(time.RFC1123Z))
	}
	for i := range w.r.Recipients {
		r := &w.r.Recipients[i]
		b.WriteString("\r\n")
		if typ, addr, ok := strings.Cut(r.ORCPT, ";"); ok {
			field("Original-Recipient", printable(cut(typ, 40))+";"+w.typed(typ, cut(addr, 600)))
		} else if !r.Original.IsZero() {
			field("Original-Recipient", w.recipient(r.Original))
		}
		field("Final-Recipient", w.recipient(r.Path))
		field("Action", r.Action.String())
		field("Status", statusCode(r))
		if r.Status.Remote != "" {
			field("Remote-MTA", "dns; "+printable(mtaName(r.Status.Remote)))
		}
		if !r.Status.IsZero() {
			typ := "smtp; "
			if r.Status.Remote == "" {
				typ = "x-postern; " // our own words, not a reply
			}
			field("Diagnostic-Code", typ+w.clean(r.Status.Error()))
		}
		if !r.LastAttempt.IsZero() {
			field("Last-Attempt-Date", r.LastAttempt.Format(time.RFC1123Z))
		}
		if r.Action == Delayed && !r.WillRetryUntil.IsZero() {
			field("Will-Retry-Until", r.WillRetryUntil.Format(time.RFC1123Z))
		}
	}
	typ := "message/delivery-status"
	if w.utf8 {
		typ = "message/global-delivery-status"
	}
	return part{"Delivery report", typ, b.Bytes()}
}

// statusCode is the Status field: its class always fits the action (RFC 3464 §2.3.4).
func statusCode(r *Recipient) string {
	e := r.Status.Enhanced
	switch {
	case r.Action == Expired:
		return "5.4.7" // RFC 3463 §3.5: delivery time expired
	case r.Action == Failed:
		e[0] = 5
	case r.Action == Delayed:
		e[0] = 4
	default:
		e[0] = 2
	}
	return fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2])
}

// mtaName writes an address as RFC 3464 wants it in the place of a name.
func mtaName(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return "[" + a.String() + "]"
	}
	return s
}

// recipient is an address with its type.
func (w *writer) recipient(p mail.Path) string {
	if p.IsASCII() {
		return "rfc822; " + p.String()
	}
	return "utf-8;" + w.typed("utf-8", p.String())
}

// typed is the address of a typed one: UTF-8 as it is in a UTF-8 report, else encoded.
func (w *writer) typed(typ, addr string) string {
	switch {
	case isASCII([]byte(addr)):
		return " " + printable(addr)
	case w.utf8:
		return " " + w.clean(addr)
	case strings.EqualFold(typ, "utf-8"):
		return string(mail.AppendUTF8Xtext([]byte{' '}, addr))
	}
	return " " + printable(addr)
}

// address is an address for people.
func (w *writer) address(p mail.Path) string { return w.clean(p.String()) }

// plain reports whether a text can be shown in this report.
func (w *writer) plain(s string) bool {
	return w.clean(s) == s && !strings.Contains(s, "=?")
}

// clean makes one printable line of s, in ASCII unless the report is UTF-8.
func (w *writer) clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r' || r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && (!w.utf8 || r < 0xa0) || r == utf8.RuneError,
			r == '\u2028' || r == '\u2029' || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return '?'
		}
		return r
	}, s)
}

// printable keeps printable ASCII and writes everything else as xtext does (RFC 3461 §4).
func printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// fold writes a line, broken at spaces near column 76 and by force before 900; the lines
// after the first begin with indent (a space, where folding must not end the field).
func fold(s, indent string) string {
	var b strings.Builder
	for len(s) > 76 {
		i := strings.LastIndexByte(s[:77], ' ')
		if i <= len(indent) {
			if i = strings.IndexByte(s[77:], ' ') + 77; i == 76 || i > 900 {
				i = min(len(s), 900)
				for i < len(s) && !utf8.RuneStart(s[i]) {
					i--
				}
			}
		}
		if strings.TrimSpace(s[:i]) == "" || i == len(s) {
			break
		}
		b.WriteString(s[:i])
		b.WriteString("\r\n")
		s = indent + strings.TrimLeft(s[i:], " ")
	}
	b.WriteString(s)
	b.WriteString("\r\n")
	return b.String()
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// original is the part with the original message, or with its header.
func (w *writer) original() part {
	full := w.r.Return == mail.ReturnFull && w.kind.failure() // RFC 3461 §4.3
	if full && int64(len(w.r.Header.Block()))+w.r.Body.Size <= maxOriginal {
		if msg, ok := w.whole(); ok {
			typ := "message/rfc822"
			if w.utf8 {
				typ = "message/global"
			}
			return part{"Undelivered message", typ, msg}
		}
	}
	var b bytes.Buffer
	for _, f := range w.r.Header.Fields {
		raw := f.Raw()
		if b.Len()+len(raw) > maxOriginal {
			break
		}
		if sendable(raw) {
			b.Write(bytes.TrimSuffix(raw, []byte("\r\n")))
			b.WriteString("\r\n") // also where the message ends without one
		}
	}
	typ := "text/rfc822-headers"
	if w.utf8 {
		typ = "message/global-headers"
	}
	return part{"Header of the message", typ, b.Bytes()}
}

// whole reads the original message. It is not ok where it cannot be read or cannot travel
// within a report; the header must do then.
func (w *writer) whole() ([]byte, bool) {
	m := mail.Message{Header: w.r.Header, Body: w.r.Body}
	r, err := m.Open()
	if err != nil {
		return nil, false
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxOriginal+1))
	if err != nil || int64(len(b)) != m.Size() {
		return nil, false
	}
	return b, sendable(b)
}

// sendable reports whether b has CRLF line ends only, no NUL, and no line above 998 octets
// (RFC 5322 §2.1.1).
func sendable(b []byte) bool {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		line := b
		if i >= 0 {
			if i == 0 || b[i-1] != '\r' {
				return false
			}
			line, b = b[:i-1], b[i+1:]
		} else {
			b = nil
		}
		if len(line) > 998 || bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
			return false
		}
	}
	return true
}
