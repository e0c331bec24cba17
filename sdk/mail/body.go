package mail

import (
	"bytes"
	"io"
	"os"
)

// Body is a reference to the body of a message: what follows the blank line after the
// header, in wire form (CRLF line ends, not dot-stuffed). It is immutable. It is inline,
// or a part of a file that may only be read.
type Body struct {
	Inline []byte // the body, when Path is empty
	Path   string // the file
	Offset int64  // where the body begins in the file, in bytes
	Size   int64  // length of the body, in bytes
}

// InlineBody wraps b, which must not be changed afterwards.
func InlineBody(b []byte) Body { return Body{Inline: b, Size: int64(len(b))} }

// Open returns a reader for the body. The caller closes it.
func (b Body) Open() (io.ReadCloser, error) {
	if b.Path == "" {
		return io.NopCloser(bytes.NewReader(b.Inline)), nil
	}
	f, err := os.Open(b.Path)
	if err != nil {
		return nil, err
	}
	return &fileBody{io.NewSectionReader(f, b.Offset, b.Size), f}, nil
}

type fileBody struct {
	*io.SectionReader
	f *os.File
}

func (f *fileBody) Close() error { return f.f.Close() }

// Message is one version of a message, as a plugin sees it.
type Message struct {
	Envelope Envelope
	Header   Header
	// Body is the zero Body for a plugin that declared that it needs headers only.
	Body Body
	// Scores and Notes are what plugins before this one said, by plugin name. Notes are "plugin/key".
	Scores map[string]float64
	Notes  map[string]string
}

// Open returns a reader for the whole message: header, blank line, body.
func (m *Message) Open() (io.ReadCloser, error) {
	body, err := m.Body.Open()
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(m.Header.Block()), body), body}, nil
}

// Size is the length of the whole message, in bytes.
func (m *Message) Size() int64 { return int64(len(m.Header.Block())) + m.Body.Size }
