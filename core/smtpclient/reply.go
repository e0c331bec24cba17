package smtpclient

import (
	"bufio"
	"bytes"
	"errors"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Bounds on one reply (N-10). RFC 5321 §4.5.3.1.5 asks for lines of 512 octets.
const (
	maxReplyLine  = 4096 // the size of the read buffer
	maxReplyLines = 100
	maxReplyBytes = 64 << 10
	maxReplyText  = 1024 // of which mail.Status keeps 400
)

// protocolError says that the peer does not speak SMTP as we know it: never a reason to
// bounce.
type protocolError string

func (e protocolError) Error() string { return "protocol error: " + string(e) }

// reply is one reply of the peer. The text is only good until the next one is read.
type reply struct {
	code     int
	enhanced [3]int // zero: none was given
	text     []byte // of all lines, joined with spaces, cut at maxReplyText
}

func (r *reply) success() bool { return r.code/100 == 2 }

// read reads a reply (RFC 5321 §4.2.1) from br and calls each, if not nil, with the text of
// every line. A line that ends in LF alone is accepted, everything else that is not a
// reply is a protocolError.
func (r *reply) read(br *bufio.Reader, each func(i int, text []byte)) error {
	r.code, r.enhanced, r.text = 0, [3]int{}, r.text[:0]
	total := 0
	for i := 0; ; i++ {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return protocolError("reply line is too long")
		}
		if err != nil {
			return err
		}
		if total += len(line); i == maxReplyLines || total > maxReplyBytes {
			return protocolError("reply has too many lines")
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		code, more, text, ok := splitReplyLine(line)
		if !ok {
			return protocolError("malformed reply")
		}
		if i > 0 && code != r.code {
			return protocolError("reply changes its code")
		}
		r.code = code
		if each != nil {
			each(i, text)
		}
		r.add(i, text)
		if !more {
			return nil
		}
	}
}

func splitReplyLine(line []byte) (code int, more bool, text []byte, ok bool) {
	if len(line) < 3 {
		return 0, false, nil, false
	}
	a, b, c := line[0]-'0', line[1]-'0', line[2]-'0'
	if a < 2 || a > 5 || b > 5 || c > 9 { // RFC 5321 §4.2: 2yz to 5yz, second digit 0 to 5
		return 0, false, nil, false
	}
	code = int(a)*100 + int(b)*10 + int(c)
	if len(line) == 3 {
		return code, false, nil, true
	}
	switch line[3] {
	case ' ':
		return code, false, line[4:], true
	case '-':
		return code, true, line[4:], true
	}
	return 0, false, nil, false
}

// add takes over one line's text, without the enhanced code that begins it (RFC 2034 §3).
func (r *reply) add(i int, line []byte) {
	text := string(line)
	if enhanced, rest, ok := mail.CutEnhanced(text); ok && enhanced[0] == r.code/100 {
		if i == 0 {
			r.enhanced = enhanced
		}
		text = rest
	}
	if len(r.text) > 0 && len(text) > 0 && len(r.text) < maxReplyText {
		r.text = append(r.text, ' ')
	}
	r.text = append(r.text, text[:min(len(text), max(maxReplyText-len(r.text), 0))]...)
}

// status is the reply as a status said by remote. A reply that is neither a success nor a
// failure (3yz) is temporary.
func (r *reply) status(remote string) mail.Status {
	var s mail.Status
	switch text := string(r.text); r.code / 100 {
	case 2:
		s = mail.OK(r.code, r.enhanced[1], r.enhanced[2], text)
	case 5:
		s = mail.Permanent(r.code, r.enhanced[1], r.enhanced[2], text)
	case 4:
		s = mail.Temporary(r.code, r.enhanced[1], r.enhanced[2], text)
	default:
		s = mail.Temporary(451, 5, 0, "unexpected reply "+text)
	}
	s.Remote = remote
	return s
}

// deferred is the reply as a temporary status, whatever its class: a refusal of the
// connection or of our log-in says nothing of the recipient.
func (r *reply) deferred(subject, detail int, remote, during string) mail.Status {
	s := r.status(remote)
	if s.Temporary() && r.enhanced[0] == 4 {
		subject, detail = s.Enhanced[1], s.Enhanced[2]
	}
	code := 451
	if s.Temporary() {
		code = s.Code
	}
	var b strings.Builder
	b.WriteString(remote)
	b.WriteString(" said ")
	b.WriteString(during)
	b.WriteString(": ")
	b.WriteString(s.Error())
	d := mail.Temporary(code, subject, detail, b.String())
	d.Remote = remote
	return d
}
