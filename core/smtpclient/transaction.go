package smtpclient

import (
	"bufio"
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

const (
	writeSize = 32 << 10
	// pipelineMax commands are sent before their replies are read: few enough that both
	// directions fit into the buffers of the kernel (RFC 2920 §3.1).
	pipelineMax = 100
	// lastWords is how long we listen to a peer that closed while we were writing.
	lastWords = 5 * time.Second
)

// buffers are what one transaction needs, whatever the size of the message.
type buffers struct {
	w    *bufio.Writer
	file []byte // made when a body is in a file
	line []byte
}

func newBufferPool() *sync.Pool {
	return &sync.Pool{New: func() any { return &buffers{w: bufio.NewWriterSize(nil, writeSize)} }}
}

// transaction is one MAIL to final dot on a session, for some recipients of a job.
type transaction struct {
	*session
	*buffers
	job   *Job
	res   []Result // of the job, parallel to job.Recipients
	rcpts []int    // indices into res that this transaction is about

	utf8     bool  // MAIL says SMTPUTF8
	refused  bool  // MAIL was refused
	accepted []int // indices whose RCPT was accepted
	goAhead  bool  // 354
	replies  int   // read since it began
}

// errClosing says that the peer answered 421: it closes the session.
type errClosing struct{ status mail.Status }

func (e *errClosing) Error() string { return e.status.Error() }

// run carries out the transaction. Recipients of which something is known then have their
// result. An error is one of the connection, before the message was given over: what has
// no result yet may be tried elsewhere.
func (x *transaction) run(ctx context.Context) error {
	if x.dirty {
		// Nothing of a failed transaction may show up in this one (N-22).
		if err := x.command("RSET", nil); err != nil {
			return err
		}
		if !x.reply.success() {
			return protocolError("RSET refused")
		}
		x.dirty = false
	}
	if x.check(); len(x.rcpts) == 0 {
		return nil
	}
	x.dirty = true // until all went well
	x.w.Reset(x.session)
	if err := x.envelope(); err != nil {
		return err
	}
	if !x.goAhead {
		return nil
	}
	if len(x.accepted) == 0 {
		return protocolError("354 without a recipient")
	}
	return x.message(ctx)
}

// check gives a result to recipients that this peer cannot serve.
func (x *transaction) check() {
	size := int64(len(x.job.Header.Block())) + x.job.Body.Size
	env := x.job.Envelope
	x.utf8 = x.ext.utf8 && (env.UTF8 || !env.ReversePath.IsASCII())
	var all mail.Status
	switch {
	case x.ext.size > 0 && size > x.ext.size:
		all = mail.Permanent(552, 3, 4, "message is larger than "+x.remote+" takes")
	case env.RequireTLS && x.target.path == "" && !(x.ext.requireTLS && x.tls && x.verified):
		all = mail.Permanent(550, 7, 30, x.remote+" does not support REQUIRETLS, which the sender asked for")
	case !x.ext.utf8 && (!env.ReversePath.IsASCII() || env.UTF8 && !isASCII(x.job.Header.Block())):
		all = mail.Permanent(553, 6, 7, x.remote+" does not support SMTPUTF8, which this message needs")
	}
	left := x.rcpts[:0]
	for _, i := range x.rcpts {
		ascii := x.job.rcpt(i).Path.IsASCII()
		switch {
		case !all.IsZero():
			x.res[i].Status = all
		case !ascii && !x.ext.utf8:
			x.res[i].Status = mail.Permanent(553, 6, 7, x.remote+" does not support SMTPUTF8, which this address needs")
		default:
			x.utf8 = x.utf8 || !ascii
			left = append(left, i)
		}
	}
	x.rcpts = left
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// envelope sends MAIL, RCPT and DATA, many at a time where the peer can pipeline
// (RFC 2920), and reads the replies.
func (x *transaction) envelope() error {
	total := len(x.rcpts) + 2
	for i := 0; i < total; {
		n := 1
		if x.ext.pipelining && !x.lockstep {
			n = min(total-i, pipelineMax)
		}
		if i+n == total && i > 0 && len(x.accepted) == 0 && n == 1 {
			return nil // lock-step, and nobody to send the message to
		}
		for k := i; k < i+n; k++ {
			x.line = x.appendCommand(x.line[:0], k, total)
			x.phase = x.client.o.Timeouts.Rcpt
			if _, err := x.w.Write(x.line); err != nil {
				return err
			}
		}
		if err := x.w.Flush(); err != nil {
			return err
		}
		for k := i; k < i+n; k++ {
			if err := x.readReply(k, total); err != nil {
				return err
			}
		}
		if i += n; x.refused {
			return nil
		}
	}
	return nil
}

func (x *transaction) appendCommand(b []byte, k, total int) []byte {
	switch k {
	case 0:
		return x.mail().Append(b)
	case total - 1:
		return append(b, "DATA\r\n"...)
	}
	return x.rcpt(x.job.rcpt(x.rcpts[k-1])).Append(b)
}

// readReply reads the reply to the k-th command of the envelope and draws the conclusion.
func (x *transaction) readReply(k, total int) error {
	limit := x.client.o.Timeouts.Rcpt
	switch k {
	case 0:
		limit = x.client.o.Timeouts.Mail
	case total - 1:
		limit = x.client.o.Timeouts.Data
	}
	x.setDeadline(limit)
	if err := x.reply.read(x.br, nil); err != nil {
		return err
	}
	r := &x.reply
	if r.code == 421 {
		return &errClosing{r.status(x.remote)}
	}
	x.replies++
	if r.code/100 == 3 && k != total-1 {
		return protocolError("unexpected " + string(r.text))
	}
	switch {
	case k == total-1:
		return x.dataReply()
	case k == 0 && !r.success():
		x.refused = true
		x.setAll(x.rcpts, r.status(x.remote))
	case k == 0 || x.refused:
	case r.success():
		x.accepted = append(x.accepted, x.rcpts[k-1])
	case r.code == 552 && (r.enhanced == [3]int{} || r.enhanced == [3]int{5, 5, 3}):
		// RFC 5321 §4.5.3.1.10: too many recipients, once said with this code.
		x.res[x.rcpts[k-1]].Status = r.deferred(5, 3, x.remote, "to RCPT")
	default:
		x.res[x.rcpts[k-1]].Status = r.status(x.remote)
	}
	return nil
}

func (x *transaction) dataReply() error {
	switch {
	case x.reply.code == 354:
		if x.br.Buffered() > 0 {
			return protocolError("a reply follows 354") // it cannot know the message yet (N-11)
		}
		x.goAhead = !x.refused
		if x.refused {
			return protocolError("354 after a refused MAIL")
		}
	case x.reply.success():
		return protocolError("DATA answered without 354")
	case !x.refused:
		x.setAll(x.accepted, x.reply.status(x.remote))
	}
	return nil
}

func (x *transaction) setAll(list []int, s mail.Status) {
	for _, i := range list {
		x.res[i].Status = s
	}
}

// message sends header, body and the final dot, and reads what the peer says to it.
func (x *transaction) message(ctx context.Context) error {
	if x.job.Body.Path != "" && x.file == nil {
		x.file = make([]byte, writeSize)
	}
	x.phase = x.client.o.Timeouts.Block
	err := writeMessage(x.w, x.job.Header, x.job.Body, x.file)
	if err == nil && x.heard() {
		if done, err := x.early(); done || err != nil {
			return err
		}
	}
	if err == nil && x.job.BeforeDot != nil {
		if err = x.job.BeforeDot(ctx); err != nil {
			x.giveUp(mail.Temporary(451, 3, 0, "the right to deliver this message was lost"))
			return nil
		}
	}
	if err == nil {
		x.w.WriteString(".\r\n")
		err = x.w.Flush()
	}
	switch {
	case errors.Is(err, errContent):
		x.client.o.Log.Error("message content refused", "id", x.job.Envelope.ID, "reason", err.Error())
		x.accepted = allPending(x.res) // it is the same message for all of them
		x.giveUp(mail.Permanent(554, 6, 0, "Message has a bare CR, a bare LF or a NUL and cannot be sent"))
		return nil
	case errors.Is(err, errBody):
		x.client.o.Log.Error("stored body cannot be read", "id", x.job.Envelope.ID)
		x.accepted = allPending(x.res)
		x.giveUp(mail.Temporary(451, 3, 0, "stored message cannot be read"))
		return nil
	case err != nil:
		return x.interrupted(err)
	}
	return x.verdicts()
}

func allPending(res []Result) (list []int) {
	for i := range res {
		if res[i].IsZero() {
			list = append(list, i)
		}
	}
	return list
}

// giveUp leaves the message without its end: the peer must not take what it has for the
// whole of it.
func (x *transaction) giveUp(s mail.Status) {
	x.broken = true
	x.setAll(x.accepted, s)
}

// early deals with what the peer said before the message ended. A refusal is one; praise
// is a lie (N-11). Below TLS it may be a mere record of TLS.
func (x *transaction) early() (done bool, err error) {
	if x.tls {
		x.setDeadline(50 * time.Millisecond)
		if _, err := x.br.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
	}
	x.setDeadline(lastWords)
	if err := x.reply.read(x.br, nil); err != nil {
		return false, err
	}
	if x.reply.success() || x.reply.code/100 == 3 {
		return false, protocolError("message answered before its end")
	}
	x.giveUp(x.reply.status(x.remote))
	return true, nil
}

// interrupted deals with a connection that broke while the message was being written. The
// peer may have said why.
func (x *transaction) interrupted(err error) error {
	x.setDeadline(lastWords)
	if !errors.Is(err, os.ErrDeadlineExceeded) && x.reply.read(x.br, nil) == nil && !x.reply.success() && x.reply.code/100 != 3 {
		x.giveUp(x.reply.status(x.remote))
		return nil
	}
	return err
}

// verdicts reads the replies to the final dot: one, or with LMTP one for each recipient
// that was accepted, in order (RFC 2033 §4.2). Where none comes the message may have been
// taken: to try again may make a duplicate, not to try may lose it (RFC 5321 §4.5.3.2.6).
func (x *transaction) verdicts() error {
	clean := true
	for n, i := range x.accepted {
		if n == 0 || x.target.lmtp {
			x.setDeadline(x.client.o.Timeouts.Dot)
			if err := x.reply.read(x.br, nil); err != nil {
				x.broken = true
				s := mail.Temporary(451, 4, 2, x.lost(err).Text+" after the end of the message; it may have been taken, and a duplicate is possible")
				for _, i := range x.accepted[n:] {
					x.res[i] = Result{Status: s, Duplicate: true}
				}
				return nil
			}
		}
		r := &x.reply
		if r.code == 421 || r.code/100 == 3 {
			x.broken = true
		}
		if clean = clean && r.success(); r.success() {
			x.res[i].DSN, x.res[i].TLS = x.ext.dsn, x.tls
		}
		if n == 0 || x.target.lmtp {
			x.res[i].Status = r.status(x.remote)
		} else {
			x.res[i].Status = x.res[x.accepted[0]].Status
		}
	}
	x.messages++
	x.dirty = !clean
	return nil
}
