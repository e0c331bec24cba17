package sieve

import (
	"bytes"
	"mime"
	"mime/quotedprintable"
	"strings"
	"unicode/utf8"

	words "github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk/mail"
)

// composed is a message in the making.
type composed struct {
	block bytes.Buffer
	body  []byte
}

// add adds a field whose value is ASCII, folded where it is long.
func (c *composed) add(name, value string) {
	c.block.WriteString(name + ": " + folded(value, len(name)+2) + "\r\n")
}

// text adds a field with text of a script or of a message in it: one line, and encoded where
// it is not ASCII (RFC 2047).
func (c *composed) text(name, value string) { c.add(name, encoded(oneLine(value, 900))) }

func (c *composed) header() mail.Header {
	return mail.NewHeader(append(bytes.Clone(c.block.Bytes()), "\r\n"...))
}

// encodedPhrase is a display name (RFC 5322 §3.2.5).
func encodedPhrase(s string) string {
	s = oneLine(s, 200)
	if e := encoded(s); e != s {
		return e
	}
	return `"` + quoted(s) + `"`
}

// maxReferences bounds the field References, in bytes: its middle is the least use.
const maxReferences = 900

// refer adds In-Reply-To and References (RFC 5322 §3.6.4).
func (c *composed) refer(h mail.Header) {
	id := messageIDs(h.Get("Message-ID"))
	if len(id) == 0 {
		return
	}
	c.add("In-Reply-To", id[0])
	thread := messageIDs(h.Get("References"))
	if len(thread) == 0 {
		if thread = messageIDs(h.Get("In-Reply-To")); len(thread) > 1 {
			thread = nil
		}
	}
	thread = append(thread, id[0])
	size := 0
	for i := len(thread) - 1; i >= 0; i-- {
		if size += len(thread[i]) + 1; size > maxReferences {
			thread = thread[i+1:]
			break
		}
	}
	if len(thread) > 0 {
		c.add("References", strings.Join(thread, " "))
	}
}

// messageIDs are the message ids in a value that look like some.
func messageIDs(value string) []string {
	var ids []string
	for word := range strings.FieldsSeq(value) {
		if len(word) > 2 && len(word) <= 250 && word[0] == '<' && word[len(word)-1] == '>' && strings.IndexFunc(word, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0 {
			ids = append(ids, word)
		}
	}
	return ids
}

// plain makes the body plain text.
func (c *composed) plain(text string) error {
	c.add("MIME-Version", "1.0")
	c.add("Content-Type", "text/plain; charset=utf-8")
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "?")
	text = strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"), "\n", "\r\n")
	if !strings.HasSuffix(text, "\r\n") {
		text += "\r\n"
	}
	if sevenBit([]byte(text)) {
		c.body = []byte(text)
	} else {
		c.add("Content-Transfer-Encoding", "quoted-printable")
		var b bytes.Buffer
		w := quotedprintable.NewWriter(&b)
		w.Write([]byte(text)) // to memory
		w.Close()
		c.body = b.Bytes()
	}
	return c.checked()
}

// entity makes header and body of a MIME entity (RFC 5230 §4.1, :mime). Of its fields only those count that
// describe a body.
func (c *composed) entity(text string) error {
	text = strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"), "\n", "\r\n")
	text = strings.ReplaceAll(text, "\x00", "")
	h, body := mail.SplitMessage([]byte(text))
	c.add("MIME-Version", "1.0")
	for _, f := range h.Fields {
		if strings.HasPrefix(strings.ToLower(f.Name), "content-") {
			c.block.Write(bytes.TrimSuffix(f.Raw(), []byte("\r\n")))
			c.block.WriteString("\r\n")
		}
	}
	c.body = body
	if len(body) > 0 && !bytes.HasSuffix(body, []byte("\r\n")) {
		c.body = append(bytes.Clone(body), "\r\n"...)
	}
	return c.checked()
}

func (c *composed) checked() error {
	if len(c.body) > maxBody || c.block.Len() > maxBody {
		return errLong
	}
	return nil
}

// sevenBit reports whether a body can go without an encoding (RFC 5322 §2.1.1).
func sevenBit(b []byte) bool {
	line := 0
	for _, c := range b {
		if line++; c == '\n' {
			line = 0
		}
		if c >= 0x80 || line > 998 {
			return false
		}
	}
	return true
}

// decoded is the value of a field as text.
func decoded(value string) string {
	s, _ := words.DecodeWords(value)
	return strings.TrimSpace(s)
}

// encoded is text for a field: in encoded words if it is not ASCII (RFC 2047).
func encoded(s string) string {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return mime.BEncoding.Encode("utf-8", s)
		}
	}
	return s
}

// oneLine is text without control characters, cut at some bytes.
func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029':
			return ' '
		}
		return r
	}, strings.ReplaceAll(s, "\r\n", " "))
	s = strings.TrimSpace(s)
	if len(s) <= most {
		return s
	}
	n := most - len("...")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// lineLength is how long a line of a header should be (RFC 5322 §2.1.1).
const lineLength = 76

// folded breaks a value at its blanks; used is what its first line has already.
func folded(s string, used int) string {
	if used+len(s) <= lineLength {
		return s
	}
	var b strings.Builder
	for i, word := range strings.Split(s, " ") {
		if i > 0 {
			if used+1+len(word) > lineLength && used > 1 && word != "" {
				b.WriteString("\r\n")
				used = 0
			}
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += len(word)
	}
	return b.String()
}
