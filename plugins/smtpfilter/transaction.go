package smtpfilter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
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
	case e.RequireTLS && !local(t.RemoteAddr()):
		return "", unscanned("the message must not leave this machine without TLS")
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

// local reports whether an address is on this machine, as far as it shows.
func local(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
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
