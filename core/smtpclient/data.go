package smtpclient

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/postern-mail/postern/sdk/mail"
)

// errContent says that a message has a bare CR, a bare LF or a NUL: it would smuggle
// (S-14) and must never leave, whoever let it in.
var errContent = errors.New("message has a bare CR, a bare LF or a NUL")

// errBody says that the stored body could not be read to its end.
var errBody = errors.New("stored body cannot be read")

// dataWriter writes a message in the form it has after DATA (RFC 5321 §4.5.2): dots
// stuffed, CRLF line ends only, and ends it.
type dataWriter struct {
	w   *bufio.Writer
	mid bool // within a line
	cr  bool // the last octet was CR
}

// Write writes the next part of the message. errContent means that what is wrong was not
// written and that the dot must not be sent.
func (d *dataWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if d.cr {
			if p[0] != '\n' {
				return 0, errContent
			}
			d.w.WriteByte('\n')
			d.cr, d.mid, p = false, false, p[1:]
			continue
		}
		line := p
		end := bytes.IndexByte(p, '\n')
		text := 0 // length of the line without its line end
		if end >= 0 {
			if end == 0 || p[end-1] != '\r' {
				return 0, errContent
			}
			line, text = p[:end+1], end-1
		} else if text = len(line); p[text-1] == '\r' {
			text, d.cr = text-1, true
		}
		if bytes.IndexByte(line[:text], '\r') >= 0 || bytes.IndexByte(line[:text], 0) >= 0 {
			return 0, errContent
		}
		if !d.mid && p[0] == '.' {
			d.w.WriteByte('.')
		}
		if _, err := d.w.Write(line); err != nil { // also tells of the errors above: they stick
			return 0, err
		}
		d.mid = end < 0
		p = p[len(line):]
	}
	return n, nil
}

// end closes the last line, if it is open, so that the dot can follow.
func (d *dataWriter) end() error {
	if d.cr {
		return errContent
	}
	if d.mid {
		d.w.WriteString("\r\n") // the dot needs a line of its own: the one change we make
	}
	return nil
}

// writeMessage writes header and body, up to but not with the final dot. buf is for
// reading files.
func writeMessage(w *bufio.Writer, h mail.Header, b mail.Body, buf []byte) error {
	d := dataWriter{w: w}
	if _, err := d.Write(h.Block()); err != nil {
		return err
	}
	if b.Path == "" {
		if _, err := d.Write(b.Inline); err != nil {
			return err
		}
		return d.end()
	}
	r, err := b.Open()
	if err != nil {
		return errBody
	}
	defer r.Close()
	for left := b.Size; left > 0; {
		n, err := r.Read(buf)
		if int64(n) > left {
			return errBody
		}
		left -= int64(n)
		if _, err := d.Write(buf[:n]); err != nil {
			return err
		}
		if err != nil && (err != io.EOF || left > 0) {
			return errBody // shorter than it was when we promised to deliver it
		}
	}
	return d.end()
}
