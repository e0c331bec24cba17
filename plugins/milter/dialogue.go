package milter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/emersion/go-milter"

	"github.com/postern-mail/postern/plugins/internal/milterwire"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

var (
	errDial   = errors.New("cannot connect")
	errAnswer = errors.New("an answer that cannot be carried out")
	errField  = errors.New("a header field is too large for the milter protocol")
)

// dialogue is one message replayed to the milter.
type dialogue struct {
	p   *Plugin
	m   *mail.Message
	ctx context.Context
	v   *sdk.Verdict

	conn    *milterwire.Conn
	session *milter.ClientSession
	at      string // the step, for people

	here   []int          // recipients that are in the transaction, by index in the envelope
	hidden map[string]int // fields that the milter was not shown, by name in lower case
	body   *replacement
}

// run replays the whole message and returns what the milter wants.
func (d *dialogue) run() (*sdk.Verdict, error) {
	if err := d.open(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(d.ctx, d.conn.Abandon) // go-milter knows no contexts
	defer stop()
	for _, step := range []func() (final bool, err error){d.connect, d.helo, d.mail, d.recipients, d.data, d.header, d.content, d.end} {
		final, err := step()
		if err != nil {
			d.conn.Abandon()
			return nil, err
		}
		if final {
			break
		}
	}
	d.session.Close()
	return d.v, nil
}

// dialer hands go-milter a connection that is there already.
type dialer struct{ net.Conn }

func (d dialer) Dial(string, string) (net.Conn, error) { return d.Conn, nil }

// open connects and negotiates.
func (d *dialogue) open() error {
	d.at = "connection"
	ctx, cancel := context.WithTimeout(d.ctx, d.p.timeouts.Connect)
	defer cancel()
	var nd net.Dialer
	c, err := nd.DialContext(ctx, d.p.network, d.p.address)
	if err != nil {
		return fmt.Errorf("%w: %w", errDial, err)
	}
	d.conn = milterwire.New(c)
	d.conn.Begin(milterwire.Negotiation, d.p.timeouts.Connect)
	stop := context.AfterFunc(d.ctx, d.conn.Abandon)
	defer stop()
	d.at = "negotiation"
	d.session, err = milter.NewClientWithOptions(d.p.network, d.p.address, milter.ClientOptions{
		Dialer: dialer{d.conn}, ActionMask: milterwire.Actions, ProtocolMask: milterwire.Protocol}).Session()
	if err != nil {
		d.conn.Abandon()
		return err
	}
	return nil
}

// begin prepares a command: its deadline, and the macros that go before it.
func (d *dialogue) begin(name string, code milter.Code, to *mail.Path) error {
	d.at = name
	d.conn.Begin(milterwire.Plain, d.p.timeouts.Command)
	return d.sendMacros(code, to)
}

func (d *dialogue) connect() (bool, error) {
	if err := d.begin("connect", milter.CodeConn, nil); err != nil {
		return false, err
	}
	host, family, addr := d.client()
	return d.judge(d.session.Conn(host, family, d.m.Envelope.Client.Port, addr))
}

func (d *dialogue) helo() (bool, error) {
	name := d.m.Envelope.Client.Helo
	if name == "" {
		name = d.p.hostname
	}
	if err := d.begin("HELO", milter.CodeHelo, nil); err != nil {
		return false, err
	}
	return d.judge(d.session.Helo(text(name)))
}

func (d *dialogue) mail() (bool, error) {
	if err := d.begin("MAIL", milter.CodeMail, nil); err != nil {
		return false, err
	}
	return d.judge(d.session.Mail(d.m.Envelope.ReversePath.String(), d.mailParameters()))
}

// recipients names the recipients. One that the milter refuses is refused alone, and is not
// part of the transaction any more.
func (d *dialogue) recipients() (bool, error) {
	for i := range d.m.Envelope.Recipients {
		r := &d.m.Envelope.Recipients[i]
		if err := d.begin("RCPT", milter.CodeRcpt, &r.Path); err != nil {
			return false, err
		}
		act, err := d.session.Rcpt(r.Path.String(), rcptParameters(r))
		if err != nil {
			return false, err
		}
		o, final := d.outcome(act)
		switch {
		case o.Action == sdk.ActionReject || o.Action == sdk.ActionTempfail && !d.conn.Gone:
			d.v.For(i, o)
			continue
		case final:
			d.conclude(o)
			return true, nil
		}
		d.here = append(d.here, i)
	}
	if len(d.here) == 0 && len(d.m.Envelope.Recipients) > 0 {
		d.v.Note("answer", "no recipient is left")
		return true, nil
	}
	return false, nil
}

func (d *dialogue) data() (bool, error) {
	if err := d.begin("DATA", milter.CodeData, nil); err != nil {
		return false, err
	}
	return d.judge(d.conn.Data(d.session.ProtocolOpts))
}

// header shows the header, without our own Received field: milters count fields as they came.
func (d *dialogue) header() (final bool, err error) {
	d.hidden = make(map[string]int)
	leading := d.session.ProtocolOption(milter.OptHeaderLeadingSpace)
	wanted := !d.session.ProtocolOption(milter.OptNoHeaders)
	d.at = "header"
	d.conn.Begin(milterwire.Plain, d.p.timeouts.Command)
	first := true
	for _, f := range d.m.Header.Fields {
		lower := strings.ToLower(f.Name)
		if d.p.skip[lower] || d.p.own.OwnsField(f.Name) || lower == "received" && first && d.ours(f) {
			d.hidden[lower]++
			first = false
			continue
		}
		first = first && lower != "received"
		if !wanted {
			continue
		}
		value := toMilter(f, leading)
		if len(f.Name)+len(value)+2 > milterwire.MaxField {
			return false, errField
		}
		if final, err = d.judge(d.session.HeaderField(f.Name, value)); final || err != nil {
			return final, err
		}
	}
	if err := d.begin("end of header", milter.CodeEOH, nil); err != nil {
		return false, err
	}
	return d.judge(d.session.HeaderEnd())
}

// ours reports whether a Received field is the one that the gateway has just added.
func (d *dialogue) ours(f mail.Field) bool {
	return d.p.hostname != "" && strings.Contains(f.Value(), "by "+d.p.hostname+" (Postern)")
}

var chunks = sync.Pool{New: func() any { return new([milter.MaxBodyChunk]byte) }}

// content shows the body.
func (d *dialogue) content() (bool, error) {
	if d.session.ProtocolOption(milter.OptNoBody) {
		return false, nil
	}
	d.at = "body"
	r, err := d.m.Body.Open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	buf := chunks.Get().(*[milter.MaxBodyChunk]byte)
	defer chunks.Put(buf)
	for {
		n, err := io.ReadFull(r, buf[:])
		if n > 0 && (err == nil || err == io.ErrUnexpectedEOF) {
			d.conn.Begin(milterwire.Content, d.p.timeouts.Body)
			if final, err := d.judge(d.session.BodyChunk(buf[:n])); final || err != nil || d.conn.Skipped {
				return final, err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return false, nil
		default:
			return false, err
		}
	}
}

// end ends the message and takes what the milter wants changed.
func (d *dialogue) end() (bool, error) {
	if err := d.begin("end of message", milter.CodeEOB, nil); err != nil {
		return false, err
	}
	d.body = &replacement{ctx: d.ctx}
	d.conn.Body = d.body.add
	d.conn.Begin(milterwire.End, d.p.timeouts.End)
	changes, act, err := d.session.End()
	if err != nil {
		return false, err
	}
	o, _ := d.outcome(act)
	d.conclude(o)
	return true, d.change(changes)
}

// mailParameters are the ESMTP parameters of MAIL, as a client would have said them.
func (d *dialogue) mailParameters() []string {
	e := &d.m.Envelope
	args := []string{"SIZE=" + strconv.FormatInt(d.m.Size(), 10)}
	if e.BodyType == mail.Body8BitMIME {
		args = append(args, "BODY=8BITMIME")
	}
	if e.UTF8 {
		args = append(args, "SMTPUTF8")
	}
	if ret := e.Return.String(); ret != "" {
		args = append(args, "RET="+ret)
	}
	if e.EnvelopeID != "" {
		args = append(args, string(mail.AppendXtext([]byte("ENVID="), e.EnvelopeID)))
	}
	return args
}

// rcptParameters are the ESMTP parameters of RCPT.
func rcptParameters(r *mail.Recipient) []string {
	var args []string
	if notify := r.Notify.String(); notify != "" {
		args = append(args, "NOTIFY="+notify)
	}
	if strings.Contains(r.ORCPT, ";") {
		args = append(args, string(mail.AppendORCPT([]byte("ORCPT="), r.ORCPT)))
	}
	return args
}

// text is s as a string of the protocol, which ends at the first NUL.
func text(s string) string { return strings.ReplaceAll(s, "\x00", "") }
