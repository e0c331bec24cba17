package smtpfilter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Limits of what the filter may say.
const (
	maxLine  = 4096 // octets of a reply line; RFC 5321 §4.5.3.1.5 has 512
	maxLines = 100  // of a reply

	// lastReply is for the reply to a whole message where the call has no deadline
	// (RFC 5321 §4.5.3.2.6).
	lastReply = 10 * time.Minute
)

// conn is a connection with the filter. What it does not offer is the zero value.
type conn struct {
	net.Conn
	ctx   context.Context
	reply time.Duration // for each reply
	r     *bufio.Reader
	w     *bufio.Writer

	pipelining, eightBit, utf8, sizes bool
	size                              int64           // the largest message; 0: not said
	forward                           map[string]bool // attributes of XFORWARD
}

// dial connects, and greets the filter.
func (p *Plugin) dial(ctx context.Context) (*conn, error) {
	until, cancel := context.WithTimeout(ctx, p.settings.ConnectTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(until, p.network, p.address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, ctx: ctx, reply: p.settings.ReplyTimeout, r: bufio.NewReaderSize(nc, maxLine), w: bufio.NewWriterSize(nc, 32<<10)}
	c.deadline(p.settings.ConnectTimeout)
	st, _, err := c.read()
	if err == nil && st.Code != 220 {
		err = fmt.Errorf("greets with %s", st.Error())
	}
	if err == nil {
		err = c.hello(p.settings.Protocol, p.settings.Helo)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// deadline is for what comes next: after d, or when the call has to be answered.
func (c *conn) deadline(d time.Duration) {
	at := time.Now().Add(d)
	if end, ok := c.ctx.Deadline(); ok && end.Before(at) {
		at = end
	}
	c.SetDeadline(at)
	if c.ctx.Err() != nil { // meanwhile
		c.SetDeadline(time.Unix(1, 0))
	}
}

// hello says LHLO, or EHLO, or HELO to a filter that does not know that.
func (c *conn) hello(protocol, name string) error {
	verb := "EHLO"
	if protocol == "lmtp" {
		verb = "LHLO"
	}
	st, lines, err := c.command(verb + " " + name)
	if err == nil && st.Permanent() && verb == "EHLO" {
		lines = nil
		st, _, err = c.command("HELO " + name)
	}
	switch {
	case err != nil:
		return err
	case !st.Success():
		return fmt.Errorf("answers %s with %s", verb, st.Error())
	}
	for _, l := range lines[min(1, len(lines)):] {
		keyword, args, _ := strings.Cut(l, " ")
		switch strings.ToUpper(keyword) {
		case "PIPELINING":
			c.pipelining = true
		case "8BITMIME":
			c.eightBit = true
		case "SMTPUTF8":
			c.utf8 = true
		case "SIZE":
			c.sizes = true
			c.size, _ = strconv.ParseInt(args, 10, 64)
		case "XFORWARD":
			c.forward = make(map[string]bool)
			for _, a := range strings.Fields(strings.ToUpper(args)) {
				c.forward[a] = true
			}
		}
	}
	return nil
}

// command sends one command and reads its reply.
func (c *conn) command(line string) (mail.Status, []string, error) {
	c.deadline(c.reply)
	c.w.WriteString(line)
	c.w.WriteString("\r\n")
	if err := c.w.Flush(); err != nil {
		return mail.Status{}, nil, err
	}
	return c.read()
}

// read reads one reply: its status, and its lines without the code.
func (c *conn) read() (mail.Status, []string, error) {
	var lines []string
	code := ""
	for len(lines) < maxLines {
		line, err := c.r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return mail.Status{}, nil, errors.New("its reply has a line that is too long")
		case err != nil:
			return mail.Status{}, nil, fmt.Errorf("no reply: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) ||
			len(line) > 3 && line[3] != ' ' && line[3] != '-' || code != "" && code != string(line[:3]) {
			return mail.Status{}, nil, errors.New("its reply is not SMTP")
		}
		code = string(line[:3])
		lines = append(lines, string(line[min(4, len(line)):]))
		if len(line) == 3 || line[3] == ' ' {
			return status(code, lines), lines, nil
		}
	}
	return mail.Status{}, nil, errors.New("its reply has too many lines")
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// status makes a reply one line, safe to be passed on, with its enhanced code if it has a
// fitting one (RFC 2034 §4: each line begins with it).
func status(code string, lines []string) mail.Status {
	n, _ := strconv.Atoi(code)
	subject, detail := 0, 0
	var text []string
	for _, l := range lines {
		if said, rest, ok := mail.CutEnhanced(l); ok && said[0] == n/100 {
			subject, detail, l = said[1], said[2], rest
		}
		if l != "" {
			text = append(text, l)
		}
	}
	words := strings.Join(text, " ")
	switch code[0] {
	case '4':
		return mail.Temporary(n, subject, detail, words)
	case '5':
		return mail.Permanent(n, subject, detail, words)
	case '2':
		return mail.OK(n, subject, detail, words)
	}
	return mail.Status{Code: n, Enhanced: [3]int{3, 0, 0}, Text: mail.OK(250, 0, 0, words).Text}
}
