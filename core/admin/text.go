package admin

import (
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"

	"github.com/postern-mail/postern/sdk/mail"
)

// Limits of what is looked at to show the beginning of a text: it is hostile.
const (
	maxTextRead  = 256 << 10 // bytes of the body
	maxTextShown = 4 << 10   // bytes
	maxTextDepth = 5         // multiparts in multiparts
	maxTextParts = 20        // in one multipart
)

// firstText is the beginning of the first text of a message, as UTF-8: that of the first part
// that is text, preferably plain. What cannot be understood is shown as it stands.
func firstText(h mail.Header, b mail.Body) string {
	body, err := b.Open()
	if err != nil {
		return ""
	}
	defer body.Close()
	text, ok := partText(h.Get, io.LimitReader(body, maxTextRead), 0)
	if !ok {
		raw, err := b.Open()
		if err != nil {
			return ""
		}
		defer raw.Close()
		text = beginning(raw)
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// partText is the text of a part with the given fields.
func partText(get func(string) string, r io.Reader, depth int) (string, bool) {
	kind, params, err := mime.ParseMediaType(get("Content-Type"))
	if err != nil {
		kind, params = "text/plain", nil
	}
	switch {
	case strings.HasPrefix(kind, "text/"):
		return beginning(inCharset(params["charset"], decoded(get("Content-Transfer-Encoding"), r))), true
	case strings.HasPrefix(kind, "multipart/") && params["boundary"] != "" && depth < maxTextDepth:
		parts := multipart.NewReader(r, params["boundary"])
		for range maxTextParts {
			p, err := parts.NextRawPart()
			if err != nil {
				return "", false
			}
			if text, ok := partText(textproto.MIMEHeader(p.Header).Get, p, depth+1); ok {
				return text, true
			}
		}
	}
	return "", false
}

func decoded(encoding string, r io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	}
	return r
}

// beginning reads as much as is shown, and what there is if there is an error.
func beginning(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, maxTextShown))
	return string(b)
}

// inCharset makes UTF-8 of a text; one in a charset that is not known passes as it is.
func inCharset(name string, r io.Reader) io.Reader {
	if name == "" {
		return r
	}
	e, err := htmlindex.Get(name)
	if err != nil || e == unicode.UTF8 {
		return r
	}
	return e.NewDecoder().Reader(r)
}

// maxWords is how much of a field is decoded, in bytes.
const maxWords = 2000

// words is the text of a field with its encoded words decoded (RFC 2047), cut at a length that
// nobody reads to the end.
func words(field string) string {
	if len(field) > maxWords {
		field = field[:maxWords]
	}
	d := mime.WordDecoder{CharsetReader: func(charset string, r io.Reader) (io.Reader, error) { return inCharset(charset, r), nil }}
	text, err := d.DecodeHeader(field)
	if err != nil {
		text = field
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
