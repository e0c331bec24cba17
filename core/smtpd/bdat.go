package smtpd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// feedChunk stands for a BDAT that continues a message; go-smtp does not get to see it.
const feedChunk = "BDAT\r\n"

// bdat begins or continues a message in chunks (RFC 3030 §2). The octets of a chunk follow
// its command whatever the answer is: they are taken, or the connection ends.
func (s *session) bdat(arg string) feed {
	c, err := parseChunk(arg)
	if err != nil {
		s.end(mail.Permanent(501, 5, 4, "Malformed BDAT: "+err.Error()))
		return feed{}
	}
	if s.body == nil {
		if !s.mayData() {
			s.dropChunk(c)
			return feed{}
		}
		s.body = &body{s: s, chunked: true}
	}
	b := s.body
	if b.chunks++; b.chunks > s.server.opt.Limits.Chunks {
		s.end(mail.Permanent(554, 5, 0, "Too many chunks"))
		return feed{}
	}
	b.chunk = c
	if c.left > s.server.opt.Limits.MessageSize-b.size {
		b.err = errTooLarge
	}
	if b.chunks == 1 {
		return feed{verbData, "DATA\r\n"}
	}
	return feed{verbBdat, feedChunk}
}

// parseChunk parses the argument of BDAT.
func parseChunk(arg string) (chunk, error) {
	size, last, _ := strings.Cut(arg, " ")
	last = strings.TrimLeft(last, " ")
	switch {
	case size == "":
		return chunk{}, errors.New("no size")
	case last != "" && !strings.EqualFold(last, "LAST"):
		return chunk{}, errors.New("only LAST may follow the size")
	case strings.Trim(size, "0123456789") != "":
		return chunk{}, errors.New("size is not a number")
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return chunk{}, errors.New("size is too large")
	}
	return chunk{n, last != ""}, nil
}

// dropChunk takes the octets of a chunk that was refused.
func (s *session) dropChunk(c chunk) {
	if err := s.skip(c.left); err != nil {
		s.lost(err)
		s.linger = true
	}
}

// nextChunk acknowledges the chunk that was read and waits for the next. Any command but
// another BDAT, or one that has no effect, ends the message.
func (s *session) nextChunk(b *body) error {
	s.line(fmt.Sprintf("250 2.0.0 Ok, %d octets so far", b.size))
	f := s.command()
	switch {
	case f.text == feedChunk:
		return b.err
	case f.text != "" && !s.ended:
		s.queued = f
	}
	return errAborted
}
