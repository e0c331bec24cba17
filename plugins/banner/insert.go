package banner

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// maxPart bounds a text to which something is added, in bytes: it is held in memory.
const maxPart = 4 << 20

// body adds the texts to the parts that are shown.
func (p *Plugin) body(ctx context.Context, m *mail.Message, v *sdk.Verdict, limit func()) error {
	tree, err := mime.Walk(m.Header, m.Body, mime.Limits{})
	if err != nil {
		return err
	}
	parts, why := p.pick(tree.Root)
	var rs []mime.Replacement
	var root *edit
	for _, part := range parts {
		e, reason, err := p.insert(tree, part)
		if err != nil {
			return err
		}
		if reason != "" {
			why = reason
			continue
		}
		rs = append(rs, e.replace)
		if part == tree.Root && e.header {
			root = e
		}
	}
	if why != "" {
		v.Note("skipped", why)
	}
	if len(rs) == 0 {
		return nil
	}
	b, err := sdk.NewBody(ctx)
	if err != nil {
		return err
	}
	if err := tree.Rewrite(b, rs); err != nil {
		return err
	}
	v.ReplaceBody(b)
	limit()
	if root != nil {
		for _, f := range root.fields {
			if m.Header.Has(f[0]) {
				v.ChangeHeader(0, f[0], f[1])
			} else {
				v.InsertHeader(-1, f[0], f[1])
			}
			limit()
		}
	}
	return nil
}

// edit is what becomes of one part.
type edit struct {
	replace mime.Replacement
	header  bool // the header changes as well
	fields  [][2]string
}

// insert adds the text to one part. A reason says why it cannot be.
func (p *Plugin) insert(tree *mime.Tree, part *mime.Part) (e *edit, reason string, err error) {
	if d := defects(part); d != 0 {
		return nil, "ambiguous: " + d.String(), nil
	}
	if part.Size() > maxPart {
		return nil, "the text is too large", nil
	}
	if part.Size() == 0 {
		return nil, "no text", nil
	}
	raw, content, odd, err := read(tree, part)
	if err != nil {
		return nil, "", err
	}
	switch {
	case odd:
		return nil, "the text is malformed", nil
	case bytes.Contains(content, []byte("-----BEGIN PGP ")):
		return nil, "signed or encrypted", nil
	}
	at, banner := p.place(content, part.Type == "text/html")
	if encoded, ok := inCharset(part, banner); ok {
		if with, from, to, ok := inPlace(part, raw, content, at, encoded); ok {
			base := part.BodyStart
			return &edit{replace: mime.Replacement{From: base + int64(from), To: base + int64(to), With: with}}, "", nil
		}
	}
	return p.convert(tree, part, content)
}

// read returns a part's body as it stands and decoded.
func read(tree *mime.Tree, part *mime.Part) (raw, content []byte, odd bool, err error) {
	r, err := tree.Raw(part)
	if err != nil {
		return nil, nil, false, err
	}
	defer r.Close()
	if raw, err = io.ReadAll(r); err != nil || part.Encoding == mime.Identity {
		return raw, raw, false, err
	}
	c, err := tree.Decoded(part)
	if err != nil {
		return nil, nil, false, err
	}
	defer c.Close()
	content, err = io.ReadAll(c)
	return raw, content, c.Defects() != 0, err
}

// inCharset writes text in the charset of a part; false if the charset does not have all of
// it, is not a superset of ASCII, or is not known.
func inCharset(part *mime.Part, text string) (string, bool) {
	cs := part.Charset()
	if cs == "" || cs == "us-ascii" {
		return text, isASCII(text)
	}
	e, err := htmlindex.Get(cs)
	if err != nil {
		return "", false
	}
	switch name, _ := htmlindex.Name(e); name {
	case "utf-16be", "utf-16le", "iso-2022-jp", "replacement", "x-user-defined":
		return "", false
	case "utf-8":
		return text, true
	}
	if isASCII(text) {
		return text, true
	}
	out, err := e.NewEncoder().String(text)
	return out, err == nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// inPlace puts text into a part's body at an offset of its content: with takes the place of
// from to to. It fails where the encoding cannot hold it, or the result would not be
// what it should be.
func inPlace(part *mime.Part, raw, content []byte, at int, text string) (with []byte, from, to int, ok bool) {
	switch part.Encoding {
	case mime.Base64:
		all := append(append(bytes.Clone(content[:at]), text...), content[at:]...)
		with = base64Lines(all)
		if bytes.HasSuffix(raw, []byte("\r\n")) {
			with = append(with, '\r', '\n')
		}
		return with, 0, len(raw), true
	case mime.QuotedPrintable:
		from = rawOffset(raw, at)
		with = quoted(text)
		return with, from, from, decodesTo(raw[:from], content[:at]) && decodesTo(append(bytes.Clone(raw[:from]), with...), append(bytes.Clone(content[:at]), text...)) && decodesTo(raw[from:], content[at:])
	}
	// RFC 2045 §6.2: 7bit, which is the default, has no bytes beyond 127.
	return []byte(text), at, at, !has8bit(text) || has8bit(string(raw)) || declares8bit(part)
}

func has8bit(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return true
		}
	}
	return false
}

func declares8bit(part *mime.Part) bool {
	cte := strings.ToLower(part.Header.Get("Content-Transfer-Encoding"))
	return cte == "8bit" || cte == "binary"
}

// decodesTo reports whether quoted-printable means a content.
func decodesTo(qp, content []byte) bool {
	h := mail.NewHeader([]byte("Content-Transfer-Encoding: quoted-printable\r\n\r\n"))
	tree, err := mime.Walk(h, mail.InlineBody(qp), mime.Limits{})
	if err != nil {
		return false
	}
	c, err := tree.Decoded(tree.Root)
	if err != nil {
		return false
	}
	got, err := io.ReadAll(c)
	return err == nil && bytes.Equal(got, content)
}

func quoted(s string) []byte {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.Bytes()
}

// base64Lines encodes in lines of 76 characters (RFC 2045 §6.8), the last without its end.
func base64Lines(b []byte) []byte {
	s := base64.StdEncoding.EncodeToString(b)
	out := make([]byte, 0, len(s)+len(s)/38)
	for len(s) > 76 {
		out = append(append(out, s[:76]...), '\r', '\n')
		s = s[76:]
	}
	return append(out, s...)
}

// convert writes a part anew, in UTF-8 and quoted-printable: its charset or encoding cannot
// hold the text.
func (p *Plugin) convert(tree *mime.Tree, part *mime.Part, content []byte) (*edit, string, error) {
	text := content
	if cs := part.Charset(); cs != "" && cs != "us-ascii" {
		e := mime.Charset(cs)
		if e == nil {
			return nil, "the charset is not known", nil
		}
		var err error
		if text, err = e.NewDecoder().Bytes(content); err != nil || bytes.ContainsRune(text, utf8.RuneError) {
			return nil, "the text is malformed", nil
		}
	}
	if !utf8.Valid(text) {
		return nil, "the text is malformed", nil
	}
	at, banner := p.place(text, part.Type == "text/html")
	body := quoted(string(text[:at]) + banner + string(text[at:]))
	e := &edit{header: true, fields: [][2]string{{"Content-Type", contentType(part)}, {"Content-Transfer-Encoding", "quoted-printable"}}}
	if part == tree.Root {
		e.fields = append(e.fields, [2]string{"MIME-Version", "1.0"})
		e.replace = mime.Replacement{From: part.BodyStart, To: part.End, With: body}
		return e, "", nil
	}
	h := mail.NewHeader(part.Header.Block())
	if !h.Separated() {
		return nil, "the part has no body", nil
	}
	for _, f := range e.fields {
		var err error
		if h.Has(f[0]) {
			_, err = h.Change(f[0], 0, f[1])
		} else {
			err = h.Append(f[0], f[1])
		}
		if err != nil {
			return nil, "the header of the text is malformed", nil
		}
	}
	e.replace = tree.Replace(part, append(bytes.Clone(h.Block()), body...))
	return e, "", nil
}

// contentType is a part's type in UTF-8, with the parameters that matter to a text.
func contentType(part *mime.Part) string {
	t := part.Type + "; charset=utf-8"
	for _, name := range []string{"format", "delsp"} { // RFC 3676
		if v := strings.ToLower(part.Params.Get(name)); v == "flowed" || v == "yes" {
			t += "; " + name + "=" + v
		}
	}
	return t
}
