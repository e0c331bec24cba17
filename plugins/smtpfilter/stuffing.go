package smtpfilter

import (
	"bytes"
	"io"
)

// stuffing writes a message for DATA: a dot before dots that begin a line. It refuses what
// is not in wire form: what one server takes for a line end and another does not is how mail
// is smuggled, also past a filter.
type stuffing struct {
	w     io.Writer
	begin bool // of a line
	cr    bool // the last byte was a CR
}

const notWire = unscanned("the message has a bare CR, a bare LF or a NUL")

// Write takes the next piece.
func (s *stuffing) Write(p []byte) (int, error) {
	if bytes.IndexByte(p, 0) >= 0 {
		return 0, notWire
	}
	for at := 0; at < len(p); {
		if s.cr {
			if p[at] != '\n' {
				return at, notWire
			}
		} else if p[at] == '\n' {
			return at, notWire
		}
		if s.begin && p[at] == '.' {
			if _, err := s.w.Write([]byte{'.'}); err != nil {
				return at, err
			}
		}
		end := len(p) // of what is written in one go: a line, or what there is of it
		if i := bytes.IndexByte(p[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if err := s.line(p[at:end]); err != nil {
			return at, err
		}
		at = end
	}
	return len(p), nil
}

// line writes a line or the beginning of one.
func (s *stuffing) line(l []byte) error {
	text, ended := bytes.CutSuffix(l, []byte("\n"))
	before := s.cr
	if len(text) > 0 {
		text, s.cr = bytes.CutSuffix(text, []byte("\r"))
		before = s.cr
	}
	if ended && !before || bytes.IndexByte(text, '\r') >= 0 {
		return notWire
	}
	s.begin = ended
	if ended {
		s.cr = false
	}
	_, err := s.w.Write(l)
	return err
}

// end writes the final dot.
func (s *stuffing) end() error {
	if s.cr {
		return notWire
	}
	dot := ".\r\n"
	if !s.begin {
		dot = "\r\n.\r\n"
	}
	_, err := io.WriteString(s.w, dot)
	return err
}
