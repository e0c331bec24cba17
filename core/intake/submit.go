package intake

import (
	"context"
	"fmt"
	"io"

	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// Submission is a message that the gateway or one of its plugins hands in. No client waits
// for its pipeline.
type Submission struct {
	Plugin      string      // the plugin whose message it is: it is never called for it
	Origin      mail.Origin // submitted, internal or fetched
	ReversePath mail.Path
	Recipients  []mail.Path
	Client      mail.Client // of fetched mail
	MaxSize     int64       // of the whole message, in bytes; 0: no limit
}

// Submit takes a message in wire form (r, unchecked) and commits it at once, "no plugin has
// run yet": the same machinery that resumes parked mail runs its pipeline. When it returns an id,
// the message is durable. The error is a mail.Status if it is an answer about the message.
//
// A refusal by a later plugin reaches the reverse-path as a report, except of fetched mail:
// its sender is a stranger to us, and such mail is held.
func (in *Intake) Submit(ctx context.Context, s Submission, r io.Reader) (string, error) {
	rules := in.rules.Load()
	now := in.Clock()
	m := &receiving{in: in, rules: rules, id: in.IDs.New(now), now: now, client: pipeline.NoClient, env: s.envelope(in.Hostname)}
	m.env.ID = m.id.String()
	defer m.abort()
	wire := &wireReader{r: r, max: s.MaxSize}
	if err := m.read(wire); err != nil {
		return "", in.statusOf(err)
	}
	if wire.eightBit {
		m.env.BodyType = mail.Body8BitMIME
	}
	m.env.UTF8 = m.env.UTF8 || !isASCII(m.header.Block())
	if err := m.expand(ctx); err != nil {
		return "", err
	}
	v := pipeline.Version{ReversePath: m.env.ReversePath, Header: m.header, Body: m.body}
	for i, to := range m.env.Recipients {
		v.Recipients = append(v.Recipients, pipeline.Recipient{Recipient: to, From: i})
	}
	if s.Origin == mail.Internal {
		v.Class = queue.Report
	}
	if s.Plugin != "" {
		v.Run.Done = []string{s.Plugin}
	}
	if err := m.commit(ctx, in.batch(m.source(), pipeline.Settlement{Versions: []pipeline.Version{v}})); err != nil {
		return "", in.statusOf(err)
	}
	in.Trace.Record(trace.Event{Type: trace.Accepted, ID: m.env.ID, Family: m.env.ID, Client: clientName(&m.env), From: m.env.ReversePath.String(), To: m.to(),
		Plugin: s.Plugin, Reason: s.Origin.String(), Size: int64(len(m.header.Block())) + m.body.Size})
	return m.env.ID, nil
}

// envelope is that of a submission; the content says the rest.
func (s *Submission) envelope(hostname string) mail.Envelope {
	env := mail.Envelope{Origin: s.Origin, ReversePath: s.ReversePath, UTF8: !s.ReversePath.IsASCII(), Client: s.Client}
	c := &env.Client
	c.Class = mail.Authenticated
	if s.Origin == mail.Fetched {
		c.Class = mail.Stranger
	}
	if c.Helo == "" {
		c.Helo = hostname
	}
	if c.Protocol == "" {
		c.Protocol = "local"
	}
	if c.Listener == "" {
		c.Listener = s.Plugin
	}
	for _, to := range s.Recipients {
		env.Recipients = append(env.Recipients, mail.Recipient{Path: to})
		env.UTF8 = env.UTF8 || !to.IsASCII()
	}
	return env
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// wireReader passes a message on if it is in wire form: CRLF is the only line end, there is no
// NUL, and it is not too long. A last line without an end gets one.
type wireReader struct {
	r        io.Reader
	max, n   int64
	last     byte
	ended    bool
	eightBit bool
}

var errWire = mail.Permanent(554, 6, 0, "Message has a bare CR, a bare LF or a NUL")

// Read passes bytes on.
func (w *wireReader) Read(b []byte) (int, error) {
	if w.ended {
		return 0, io.EOF
	}
	n, err := w.r.Read(b)
	for _, c := range b[:n] {
		if c == 0 || (c == '\n') != (w.last == '\r') {
			return 0, errWire
		}
		w.eightBit = w.eightBit || c >= 0x80
		w.last = c
	}
	if w.n += int64(n); w.max > 0 && w.n > w.max {
		return 0, mail.Permanent(552, 3, 4, fmt.Sprintf("Message size exceeds the limit of %d bytes", w.max))
	}
	if err != io.EOF {
		return n, err
	}
	switch {
	case w.last == '\r':
		return 0, errWire
	case w.last == '\n' || w.n == 0:
		w.ended = true
		return n, io.EOF
	case len(b)-n < 2:
		return n, nil // the end comes with the next call
	}
	w.ended = true
	return n + copy(b[n:], "\r\n"), nil
}
