package mail

import (
	"bytes"
	"errors"
	"hash/crc32"
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
	// Sum is the CRC-32C (Castagnoli) of a body in a file, if Summed; Open verifies it.
	Sum    uint32
	Summed bool
}

// ErrBodyDamaged says that a file does not hold the body that was put into it: whoever
// was sending it must not complete the message.
var ErrBodyDamaged = errors.New("stored body is damaged")

// InlineBody wraps b, which must not be changed afterwards.
func InlineBody(b []byte) Body { return Body{Inline: b, Size: int64(len(b))} }

// Open returns a reader for the body. The caller closes it. A file that is too short or
// does not have the checksum is ErrBodyDamaged from Read in the place of io.EOF: a
// message is never completed with an altered body, at no cost in reading.
func (b Body) Open() (io.ReadCloser, error) {
	if b.Path == "" {
		return io.NopCloser(bytes.NewReader(b.Inline)), nil
	}
	f, err := os.Open(b.Path)
	if err != nil {
		return nil, err
	}
	return &fileBody{r: io.NewSectionReader(f, b.Offset, b.Size), f: f, body: b}, nil
}

// Verify reads r, the body's bytes, to the end and compares size and checksum. A mismatch
// is ErrBodyDamaged.
func (b Body) Verify(r io.Reader) error {
	_, err := io.Copy(io.Discard, &fileBody{r: r, body: b})
	return err
}

type fileBody struct {
	r    io.Reader
	f    *os.File
	body Body
	n    int64
	sum  uint32
}

func (f *fileBody) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.n += int64(n)
	if f.body.Summed {
		f.sum = crc32.Update(f.sum, crc32.MakeTable(crc32.Castagnoli), p[:n])
	}
	if err == io.EOF && (f.n != f.body.Size || f.body.Summed && f.sum != f.body.Sum) {
		err = ErrBodyDamaged
	}
	return n, err
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
