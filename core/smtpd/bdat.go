package smtpd

import (
	"fmt"

	"github.com/postern-mail/postern/core/smtpcmd"
	"github.com/postern-mail/postern/core/smtpd/wire"
	"github.com/postern-mail/postern/sdk/mail"
)

// feedChunk stands for a BDAT that continues a message; go-smtp does not get to see it.
const feedChunk = "BDAT\r\n"

// bdat begins or continues a message in chunks (RFC 3030 §2). The octets of a chunk follow
// its command whatever the answer is: they are taken, or the connection ends.
func (s *session) bdat(arg string) feed {
	c, err := smtpcmd.ParseBdat(arg)
	if err != nil {
		s.end(mail.Permanent(501, 5, 4, "Malformed BDAT: "+err.Error()))
		return feed{}
	}
	if s.body == nil {
		if !s.mayData() {
			s.dropChunk(c)
			return feed{}
		}
		s.body, s.chunks = s.w.Chunks(&s.server.message, s.nextChunk), 0
	}
	if s.chunks++; s.chunks > s.server.opt.Limits.Chunks {
		s.end(mail.Permanent(554, 5, 0, "Too many chunks"))
		return feed{}
	}
	s.body.Chunk(c.Size, c.Last)
	if s.chunks == 1 {
		return feed{smtpcmd.VerbData, "DATA\r\n"}
	}
	return feed{smtpcmd.VerbBdat, feedChunk}
}

// dropChunk takes the octets of a chunk that was refused.
func (s *session) dropChunk(c smtpcmd.Bdat) {
	if err := s.w.Skip(c.Size, &s.server.message); err != nil {
		s.lost(err)
		s.linger = true
	}
}

// nextChunk acknowledges the chunk that was read and waits for the next. Any command but
// another BDAT, or one that has no effect, ends the message.
func (s *session) nextChunk() error {
	s.w.Reply(fmt.Sprintf("250 2.0.0 Ok, %d octets so far", s.body.Size()))
	f := s.command()
	switch {
	case f.text == feedChunk:
		return nil
	case f.text != "" && !s.ended:
		s.queued = f
	}
	return wire.ErrAborted
}
