package trial

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"sync"
	"time"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/sdk/mail"
)

// Envelope is what a client says before its message.
type Envelope struct {
	Client netip.Addr
	Helo   string
	User   string // "": nobody has logged in
	Origin mail.Origin
	From   mail.Path
	To     []mail.Path
}

// tryTime bounds what one message may take: the pipeline has a limit of its own, and each
// gate has.
const tryTime = 5 * time.Minute

// Message tries one message, in a session of its own. The error says that there is no outcome.
func (t *Trial) Message(ctx context.Context, e Envelope, r io.Reader) (*Report, error) {
	// A byte too many is enough to be refused; the ends of lines may be longer on the wire.
	text, err := io.ReadAll(io.LimitReader(r, int64(t.config.Limits.MessageSize)+1))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	t.revive(ctx)
	server, err := t.aside.Server(e.User != "", len(e.To))
	if err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	l := &oneConn{conn: addressed{theirs, &net.TCPAddr{IP: e.Client.AsSlice(), Port: 25000}}, closed: make(chan struct{})}
	served := make(chan struct{})
	go func() {
		server.Serve(l)
		close(served)
	}()
	stop := context.AfterFunc(ctx, func() { ours.Close() })
	defer stop()
	rep := &Report{envelope: e, text: text, next: t.aside.NextHop}
	t.mu.Lock()
	t.report = rep
	t.mu.Unlock()
	err = converse(ctx, ours, e, text, rep)
	ours.Close()
	ending, end := context.WithTimeout(context.Background(), time.Second)
	server.Shutdown(ending)
	end()
	<-served
	t.mu.Lock()
	t.report = nil
	t.mu.Unlock()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no outcome within %v", tryTime)
	}
	return rep, err
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept returns the connection, once.
func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close ends Accept.
func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is nothing that anybody asks for.
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// addressed is a connection that comes from an address of one's choice.
type addressed struct {
	net.Conn
	remote net.Addr
}

// RemoteAddr is that address.
func (a addressed) RemoteAddr() net.Addr { return a.remote }

// dialogue is the client's side of a session.
type dialogue struct {
	r *textproto.Reader
	w io.Writer
}

// converse sends one message and notes the replies in rep.
func converse(ctx context.Context, conn net.Conn, e Envelope, text []byte, rep *Report) error {
	if e.User != "" {
		// Both ends are ours, in one process.
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = secure
	}
	d := &dialogue{newReader(conn), conn}
	st, err := d.reply()
	if err == nil && st.Code == 220 {
		st, err = d.cmd("EHLO " + e.Helo)
	}
	if err == nil && st.Code == 250 && e.User != "" {
		st, err = d.cmd("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+e.User+"\x00-")))
	}
	if err != nil || st.Code/100 != 2 {
		rep.reply = st
		return err
	}
	return d.transaction(e, wireText(text), rep)
}

// transaction is MAIL, RCPT and DATA.
func (d *dialogue) transaction(e Envelope, text []byte, rep *Report) error {
	line := fmt.Sprintf("MAIL FROM:<%s> SIZE=%d", e.From, len(text))
	utf8 := !e.From.IsASCII()
	for _, to := range e.To {
		utf8 = utf8 || !to.IsASCII()
	}
	if utf8 || !isASCII(text) {
		line += " BODY=8BITMIME"
	}
	if utf8 {
		line += " SMTPUTF8"
	}
	st, err := d.cmd(line)
	if err != nil || st.Code != 250 {
		rep.reply = st
		return err
	}
	rep.answers = make([]wireReply, len(e.To))
	taken := false
	for i, to := range e.To {
		if rep.answers[i], err = d.cmd("RCPT TO:<" + to.String() + ">"); err != nil {
			return err
		}
		taken = taken || rep.answers[i].Code/100 == 2
	}
	if !taken {
		rep.reply = worst(rep.answers)
		return nil
	}
	if rep.reply, err = d.cmd("DATA"); err != nil || rep.reply.Code != 354 {
		return err
	}
	go func() { // the reply to a message that is refused may come before its end
		if _, err := d.w.Write(stuffed(text)); err == nil {
			io.WriteString(d.w, ".\r\n")
		}
	}()
	rep.reply, err = d.reply()
	return err
}

// worst is the reply that stands for all recipients' being refused: that it can be tried
// again, if it can for one.
func worst(replies []wireReply) wireReply {
	for _, r := range replies {
		if r.Code/100 == 4 {
			return r
		}
	}
	return replies[0]
}

// wireReply is a reply as a client reads it.
type wireReply struct {
	Code int    `json:"code"`
	Text string `json:"text"`
}

func newReader(conn net.Conn) *textproto.Reader { return textproto.NewReader(bufio.NewReader(conn)) }

func (d *dialogue) cmd(line string) (wireReply, error) {
	if _, err := io.WriteString(d.w, line+"\r\n"); err != nil {
		return wireReply{}, err
	}
	return d.reply()
}

func (d *dialogue) reply() (wireReply, error) {
	code, text, err := d.r.ReadResponse(0)
	return wireReply{code, text}, err
}

// wireText is a message from a file as it is sent: with the line ends of the wire, and with
// one at its end.
func wireText(text []byte) []byte {
	text = gateway.CRLF(text)
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\r\n")) {
		text = append(text, "\r\n"...)
	}
	return text
}

// stuffed doubles the dots at the beginning of lines (RFC 5321 §4.5.2).
func stuffed(text []byte) []byte {
	out := bytes.ReplaceAll(text, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(out, []byte(".")) {
		out = append([]byte("."), out...)
	}
	return out
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
