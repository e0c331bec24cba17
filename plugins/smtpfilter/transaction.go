package smtpfilter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

const (
	// pipelineMax commands are sent before their replies are read: few enough that both
	// directions fit into the buffers of the kernel (RFC 2920 §3.1).
	pipelineMax = 50
	// lastWords is how long a filter that closes while it is given a message may take to say why.
	lastWords = 2 * time.Second
)

// handOver gives the message to the filter and returns its last word on every recipient. An
// error says that it has none.
func (p *Plugin) handOver(ctx context.Context, m *mail.Message, token string) ([]mail.Status, error) {
	c, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	t := &transaction{conn: c, m: m, header: m.Header, lmtp: p.settings.Protocol == "lmtp", statuses: make([]mail.Status, len(m.Envelope.Recipients))}
	t.header.Remove(mail.ReinjectField, -1)
	if err := t.header.Prepend(mail.ReinjectField, token); err != nil {
		return nil, err
	}
	if err := t.run(); err != nil {
		return nil, err
	}
	c.deadline(lastWords)
	io.WriteString(c, "QUIT\r\n")
	return t.statuses, nil
}

// transaction is one message on its way to the filter.
type transaction struct {
	*conn
	m        *mail.Message
	header   mail.Header // with the token
	lmtp     bool
	statuses []mail.Status // of the recipients, as soon as there is one
}

func (t *transaction) run() error {
	if err := t.introduce(); err != nil {
		return err
	}
	line, err := t.mailCommand()
	if err != nil {
		return err
	}
	st, _, err := t.command(line)
	if err == nil {
		err = spoken("MAIL", st, 2)
	}
	if err != nil {
		return err
	}
	if !st.Success() {
		t.settle(st)
		return nil
	}
	if err := t.recipients(); err != nil || !t.open() {
		return err
	}
	if st, _, err = t.command("DATA"); err == nil {
		err = spoken("DATA", st, 3)
	}
	if err != nil {
		return err
	}
	if st.Code/100 != 3 {
		t.settle(st)
		return nil
	}
	return t.content()
}

// spoken returns an error for replies that say nothing about the message: the filter is going
// down, does not understand us, or wants a log-in. class is that of success.
func spoken(verb string, st mail.Status, class int) error {
	switch st.Code {
	case 421, 500, 501, 502, 503, 504, 530, 534, 535, 538, 555:
		return fmt.Errorf("answers %s with %s", verb, st.Error())
	}
	if c := st.Code / 100; c != class && c != 4 && c != 5 {
		return fmt.Errorf("answers %s with %s", verb, st.Error())
	}
	return nil
}

// settle is the filter's last word on all recipients that have none.
func (t *transaction) settle(st mail.Status) {
	for i := range t.statuses {
		if t.statuses[i].IsZero() {
			t.statuses[i] = st
		}
	}
}

// open reports whether there are recipients without a last word.
func (t *transaction) open() bool {
	for _, st := range t.statuses {
		if st.IsZero() {
			return true
		}
	}
	return false
}

// mailCommand is MAIL with the parameters that the filter offers.
func (t *transaction) mailCommand() (string, error) {
	e := &t.m.Envelope
	size := int64(len(t.header.Block())) + t.m.Body.Size
	ascii := e.ReversePath.IsASCII()
	for _, r := range e.Recipients {
		ascii = ascii && r.Path.IsASCII()
	}
	switch {
	case t.size > 0 && size > t.size:
		return "", unscanned("too large for the content filter")
	case !ascii && !t.utf8:
		return "", unscanned("the content filter does not take addresses in UTF-8")
	}
	line := "MAIL FROM:<" + e.ReversePath.String() + ">"
	if t.sizes {
		line += " SIZE=" + strconv.FormatInt(size, 10)
	}
	if t.eightBit && e.BodyType == mail.Body8BitMIME {
		line += " BODY=8BITMIME"
	}
	if t.utf8 && (e.UTF8 || !ascii) {
		line += " SMTPUTF8"
	}
	return line, nil
}

// recipients names the recipients, many at a time where the filter can take that.
func (t *transaction) recipients() error {
	all := t.m.Envelope.Recipients
	for from := 0; from < len(all); {
		n := 1
		if t.pipelining {
			n = min(pipelineMax, len(all)-from)
		}
		t.deadline(t.reply)
		for _, r := range all[from : from+n] {
			t.w.WriteString("RCPT TO:<" + r.Path.String() + ">\r\n")
		}
		if err := t.w.Flush(); err != nil {
			return err
		}
		for i := from; i < from+n; i++ {
			t.deadline(t.reply)
			st, _, err := t.read()
			if err == nil {
				err = spoken("RCPT", st, 2)
			}
			if err != nil {
				return err
			}
			if !st.Success() {
				t.statuses[i] = st
			}
		}
		from += n
	}
	return nil
}

// content sends the message and reads the last word: one, or with LMTP one for each
// recipient that was accepted (RFC 2033 §4.2).
func (t *transaction) content() error {
	if err := t.send(); err != nil {
		var u unscanned
		if errors.As(err, &u) {
			return err
		}
		// It may have said why it does not take any more.
		t.SetReadDeadline(time.Now().Add(lastWords))
		st, _, rerr := t.read()
		if rerr != nil || st.Code == 421 || !st.Permanent() && !st.Temporary() {
			return fmt.Errorf("does not take the message: %w", err)
		}
		t.settle(st)
		return nil
	}
	t.deadline(lastReply)
	for i := range t.statuses {
		if !t.statuses[i].IsZero() {
			continue
		}
		st, _, err := t.read()
		switch {
		case err != nil:
			return err
		case st.Code == 421 || st.Code/100 == 3:
			return fmt.Errorf("answers the message with %s", st.Error())
		case !t.lmtp:
			t.settle(st)
			return nil
		}
		t.statuses[i] = st
	}
	return nil
}

// send writes the message with its final dot.
func (t *transaction) send() error {
	body, err := t.m.Body.Open()
	if err != nil {
		return unscanned("the message cannot be read")
	}
	defer body.Close()
	s := &stuffing{w: t.w, begin: true}
	if _, err := s.Write(t.header.Block()); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		t.deadline(t.reply) // it has to take a piece within that time
		if _, werr := s.Write(buf[:n]); werr != nil {
			return werr
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return unscanned("the message cannot be read")
		}
	}
	if err := s.end(); err != nil {
		return err
	}
	return t.w.Flush()
}

// introduce tells a filter that wants to know where the message came from (Postfix's
// XFORWARD). One that does not take it does without.
func (t *transaction) introduce() error {
	attributes := forwarded(&t.m.Envelope)
	line := ""
	for i, a := range attributes {
		if name, _, _ := strings.Cut(a, "="); t.forward[name] {
			line += " " + a
		}
		if line == "" || i < len(attributes)-1 && len(line) < 200 {
			continue
		}
		st, _, err := t.command("XFORWARD" + line)
		if err != nil {
			return err
		}
		if st.Code == 421 {
			return fmt.Errorf("answers XFORWARD with %s", st.Error())
		}
		line = ""
	}
	return nil
}

// forwarded are the attributes of the client, encoded as xtext (RFC 3461 §4).
func forwarded(e *mail.Envelope) []string {
	const unknown = "[UNAVAILABLE]"
	c := &e.Client
	name, address, port, source := c.Host, unknown, unknown, "REMOTE"
	if c.Addr.IsValid() {
		address, port = c.Addr.String(), strconv.Itoa(int(c.Port))
		if c.Addr.Is6() {
			address = "IPV6:" + address
		}
	}
	if e.Origin == mail.Submitted {
		source = "LOCAL"
	}
	protocol := "SMTP"
	if strings.HasPrefix(c.Protocol, "E") || strings.HasPrefix(c.Protocol, "UTF8") {
		protocol = "ESMTP"
	}
	out := []string{}
	for _, a := range [][2]string{{"NAME", name}, {"ADDR", address}, {"PORT", port}, {"PROTO", protocol}, {"HELO", c.Helo}, {"IDENT", e.ID}, {"SOURCE", source}} {
		if a[1] == "" {
			a[1] = unknown
		}
		out = append(out, a[0]+"="+xtext(a[1]))
	}
	return out
}

func xtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < 250; i++ {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

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
