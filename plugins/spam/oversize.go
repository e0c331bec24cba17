package spam

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk/mail"
)

// Limits of what is sent of a large message, in bytes. Memory must not depend on the size
// of messages.
const (
	maxHead  = 768 << 10 // of all
	maxTexts = 256 << 10 // of all texts
	maxText  = 64 << 10  // of one text
	maxParts = 1000      // of the message
)

// cutMark stands where a text goes on in the message.
const cutMark = "\r\n[the gateway cut this text here]\r\n"

// errTooLarge says that not even the structure of a message is small.
var errTooLarge = errors.New("header and structure are too large")

// head is a large message without most of its contents: the whole header, the headers of
// all parts, and the beginning of each text.
func head(m *mail.Message) (content, error) {
	if len(m.Header.Block()) > maxHead {
		return content{}, errTooLarge
	}
	tree, err := mime.Walk(m.Header, m.Body, mime.Limits{Parts: maxParts, Headers: maxHead})
	if err != nil {
		return content{}, err
	}
	if tree.Defects&mime.Incomplete != 0 {
		return content{}, errTooLarge
	}
	texts := int64(maxTexts)
	var cuts []mime.Replacement
	for p := range tree.All {
		cuts = append(cuts, cut(p, &texts)...)
	}
	var b bytes.Buffer
	b.Write(m.Header.Block())
	if err := tree.Rewrite(&limited{&b}, cuts); err != nil {
		return content{}, err
	}
	return content{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, int64(b.Len())}, nil
}

// cut is what is left out of a part itself, without its children.
func cut(p *mime.Part, texts *int64) []mime.Replacement {
	if n := len(p.Children); n > 0 {
		if !p.IsMultipart() {
			return nil
		}
		// What stands before the first part and after the last one is shown by no reader.
		return []mime.Replacement{
			{From: p.BodyStart, To: p.Children[0].HeaderStart, With: []byte("--" + p.Boundary + "\r\n")},
			{From: p.Children[n-1].End, To: p.End, With: []byte("\r\n--" + p.Boundary + "--\r\n")},
		}
	}
	keep := int64(0)
	if strings.HasPrefix(p.Type, "text/") || p.IsMultipart() || p.IsMessage() {
		keep = min(p.Size(), maxText, *texts)
	}
	if keep == p.Size() {
		*texts -= keep
		return nil
	}
	*texts -= keep
	mark := ""
	if keep > 0 && p.Encoding != mime.Base64 {
		mark = cutMark
	}
	return []mime.Replacement{{From: p.BodyStart + keep, To: p.End, With: []byte(mark)}}
}

// limited is a buffer that does not grow without end.
type limited struct{ b *bytes.Buffer }

// Write implements [io.Writer].
func (l *limited) Write(p []byte) (int, error) {
	if l.b.Len()+len(p) > maxHead {
		return 0, errTooLarge
	}
	return l.b.Write(p)
}
