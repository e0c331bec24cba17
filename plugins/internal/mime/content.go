package mime

import (
	"io"
	"os"

	"golang.org/x/text/transform"

	"github.com/postern-mail/postern/sdk/mail"
)

// section returns a reader of a range of the body, which the caller closes.
func (t *Tree) section(from, to int64) (io.ReadCloser, error) { return section(t.body, from, to) }

func section(b mail.Body, from, to int64) (io.ReadCloser, error) {
	if b.Path == "" {
		return mail.InlineBody(b.Inline[from:to:to]).Open()
	}
	f, err := os.Open(b.Path)
	if err != nil {
		return nil, err
	}
	return &sectionReader{io.NewSectionReader(f, b.Offset+from, to-from), f, to - from}, nil
}

// sectionReader reads a part of a file. One that is too short is damaged: it was longer when
// the message was walked.
type sectionReader struct {
	r    *io.SectionReader
	f    *os.File
	left int64
}

func (s *sectionReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if s.left -= int64(n); err == io.EOF && s.left > 0 {
		err = mail.ErrBodyDamaged
	}
	return n, err
}

func (s *sectionReader) Close() error { return s.f.Close() }

// Raw returns a reader of a part's body as it stands, which the caller closes.
func (t *Tree) Raw(p *Part) (io.ReadCloser, error) { return t.section(p.BodyStart, p.End) }

// Content is what a part holds, without its transfer encoding. Read it to the end, or not,
// and close it.
type Content struct {
	io.Reader
	c io.Closer
	d *decoder
}

// Decoded returns the content of a part.
func (t *Tree) Decoded(p *Part) (*Content, error) {
	r, err := t.Raw(p)
	if err != nil {
		return nil, err
	}
	c := &Content{Reader: r, c: r}
	if p.Encoding != Identity {
		c.d = newDecoder(r, p.Encoding)
		c.Reader = c.d
	}
	return c, nil
}

// Close ends reading.
func (c *Content) Close() error { return c.c.Close() }

// Defects says whether what has been read so far was malformed, so that other readers see
// something else in it: 0 or OddContent.
func (c *Content) Defects() Defect {
	if c.d != nil && c.d.state.odd {
		return OddContent
	}
	return 0
}

// Text returns the content of a part in UTF-8, read in the charset that it declares. known
// says whether that charset is known; if not, the bytes come as they are.
func (t *Tree) Text(p *Part) (r io.ReadCloser, known bool, err error) {
	c, err := t.Decoded(p)
	if err != nil {
		return nil, false, err
	}
	e := Charset(p.Charset())
	if e == nil {
		return c, false, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{transform.NewReader(c, e.NewDecoder()), c}, true, nil
}
