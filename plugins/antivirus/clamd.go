package antivirus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"

	"github.com/postern-mail/postern/plugins/internal/failover"
	"github.com/postern-mail/postern/sdk/mail"
)

// clamd speaks the protocol of clamd(8): one command and one answer a connection, ended by
// NUL.
type clamd struct {
	handing handing
	buffers sync.Pool // *[]byte of chunk bytes
}

const (
	chunk    = 64 << 10 // bytes written at once
	maxReply = 1 << 10  // bytes of an answer
	maxName  = 200      // bytes of a signature's name
)

// letter is the line before a message that clamd is shown. Clamd takes for mail what begins
// like mail, and looks for encoded parts in nothing else: one that begins with another field,
// such as Authentication-Results, would be a text to it.
const letter = "From postern\r\n"

// scan has one clamd look at a message.
func (c *clamd) scan(ctx context.Context, address string, m *mail.Message) (answer, error) {
	if !c.handing.use(address, m.Size()) {
		return c.ask(ctx, address, m, c.stream)
	}
	a, err := c.ask(ctx, address, m, c.pass)
	if err == nil || c.handing.choice != auto || ctx.Err() != nil {
		return a, err
	}
	if a, err = c.ask(ctx, address, m, c.stream); err == nil {
		c.handing.refused.Store(true)
	}
	return a, err
}

// ask gives the message to one clamd and reads its answer.
func (c *clamd) ask(ctx context.Context, address string, m *mail.Message, give func(net.Conn, *mail.Message) error) (answer, error) {
	conn, err := failover.Dial(ctx, address)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	err = give(conn, m)
	if errors.As(err, new(contentError)) {
		return answer{}, failover.Stop(err)
	}
	// An engine that has seen enough answers and closes, while we still write: what it said
	// counts.
	reply, rerr := readReply(conn)
	if rerr != nil {
		if err != nil {
			rerr = err
		}
		return answer{}, rerr
	}
	a, perr := parseReply(reply)
	if perr == nil && err != nil && a.finding == clean {
		return answer{}, err // it has not seen all of it
	}
	return a, perr
}

// contentError says that the message cannot be read, which is no fault of the engine.
type contentError struct{ error }

func (c contentError) Unwrap() error { return c.error }

// stream sends the message with INSTREAM: chunks, each after its length in 4 bytes, the last
// one empty.
func (c *clamd) stream(w net.Conn, m *mail.Message) error {
	r, err := m.Open()
	if err != nil {
		return contentError{err}
	}
	defer r.Close()
	b := c.buffer()
	defer c.buffers.Put(b)
	buf := *b
	at := copy(buf, "zINSTREAM\x00") // a small message goes in one write
	all := io.MultiReader(strings.NewReader(letter), r)
	for {
		n, err := io.ReadFull(all, buf[at+4:len(buf)-4])
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return contentError{err}
		}
		end := at
		if n > 0 {
			binary.BigEndian.PutUint32(buf[at:], uint32(n))
			end = at + 4 + n
		}
		if last {
			end += copy(buf[end:], "\x00\x00\x00\x00")
		}
		if _, err := w.Write(buf[:end]); err != nil {
			return err
		}
		if last {
			return nil
		}
		at = 0
	}
}

func (c *clamd) buffer() *[]byte {
	if b, ok := c.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, chunk)
	return &b
}

// readReply reads one answer up to its NUL, and no more than it may have.
func readReply(conn net.Conn) (string, error) {
	buf := make([]byte, maxReply)
	n := 0
	for {
		k, err := conn.Read(buf[n:])
		n += k
		if i := bytes.IndexByte(buf[:n], 0); i >= 0 {
			if i != n-1 {
				return "", errors.New("clamd said more than one answer")
			}
			return string(buf[:i]), nil
		}
		switch {
		case n == len(buf):
			return "", errors.New("the answer of clamd has no end")
		case err == io.EOF:
			return "", errors.New("clamd closed the connection without an answer")
		case err != nil:
			return "", err
		}
	}
}

var (
	// found matches the answer to a scan: what was scanned, and what was found.
	found = regexp.MustCompile(`^(?:stream|fd\[\d{1,10}\]): (?:(OK)|([!-~][ -~]*) FOUND|([ -~]+) ERROR)$`)
	// details are what ExtendedDetectionInfo adds to a name: checksum and size.
	details = regexp.MustCompile(`\([0-9a-f]{32,64}:\d{1,20}\)$`)
)

// sizeLimit is the answer to a stream that is longer than StreamMaxLength.
const sizeLimit = "INSTREAM size limit exceeded. ERROR"

// parseReply understands the answers of clamd(8), and nothing else.
func parseReply(s string) (answer, error) {
	if s == sizeLimit {
		return answer{tooLarge, "StreamMaxLength"}, nil
	}
	match := found.FindStringSubmatch(s)
	switch {
	case match == nil:
		return answer{}, fmt.Errorf("clamd said %.100q", s)
	case match[1] != "":
		return answer{}, nil
	case match[3] != "":
		return answer{}, fmt.Errorf("clamd failed: %.100s", match[3])
	}
	name := details.ReplaceAllString(match[2], "")
	if name == "" {
		return answer{}, fmt.Errorf("clamd said %.100q", s)
	}
	return answer{classify(name), sanitize(name)}, nil
}

// sanitize makes a name what can stand in a reply and in a comment of a header field.
func sanitize(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`()<>\" `, r) {
			return '_'
		}
		return r
	}, name[:min(len(name), maxName)])
}
