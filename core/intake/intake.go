// Package intake is the one door into the queue: mail from clients, reports, and what a
// pipeline run or an expansion makes of a message all enter through it. Only this package
// makes queue entries.
//
// For a client that waits, Receive writes the content to the spool, fixes the header,
// expands aliases, runs the pipeline and commits; when it returns an accepting reply,
// content and records are durable. Everything else is handed out as a [queue.Batch] for the
// caller to commit together with the result that caused it.
//
// An Intake is safe for concurrent use.
package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// Options of an Intake.
type Options struct {
	Hostname   string
	Postmaster mail.Path // contact in reports
	IDs        *queue.IDs
	Spool      *spool.Spool
	Store      queue.Store
	Backoff    queue.Backoff
	Trace      trace.Recorder
	Log        *slog.Logger
	Clock      func() time.Time
}

// Rules are what a reload may change.
type Rules struct {
	Pipeline *pipeline.Pipeline
	// Author says whether a client may send a message with that header; nil: any. The zero Status
	// means yes.
	Author func(ctx context.Context, c *mail.Client, h mail.Header) mail.Status
	// Expand returns what an accepted address stands for: itself, or what its alias or
	// group leads to. An error that is no mail.Status is temporary.
	Expand func(ctx context.Context, p mail.Path) ([]mail.Path, error)
	// Reaches says whether an account of ours may send to an address, and whether there is such a one as
	// far as the gateway knows: a mail.Status if not. It is asked about what recipients' plans
	// name, and about senders who get a report (by is the zero Path). nil: any may be.
	Reaches func(ctx context.Context, by, p mail.Path) error
	// Sender returns the reverse-path to use in the place of the one given; nil: it stays. An
	// error is temporary.
	Sender func(ctx context.Context, p mail.Path) (mail.Path, error)
	// SendOn returns the reverse-path with which mail that an alias or a redirect leads to another
	// address is sent on (SRS), SentBy who hears of mail that was sent on so. nil: nothing changes.
	SendOn func(reverse, to mail.Path) mail.Path
	SentBy func(reverse mail.Path) mail.Path
	// Destination is the key of the next hop for a recipient.
	Destination func(p mail.Path) string
	HeaderSize  int   // bytes; a larger header block is refused
	Hops        int   // more Received fields than this are a loop
	BodySize    int64 // bytes; a plugin cannot put a larger body in the place of another
	// Quarantine is how long quarantined mail is kept; 0: [QuarantineTime].
	Quarantine time.Duration
}

// Intake is the door.
type Intake struct {
	Options
	rules atomic.Pointer[Rules]
}

// New returns an Intake that follows r.
func New(o Options, r Rules) *Intake {
	in := &Intake{Options: o}
	in.rules.Store(&r)
	return in
}

// Reload makes r the rules for messages that arrive from now on.
func (in *Intake) Reload(r Rules) { in.rules.Store(&r) }

// Receipt is the outcome for the client.
type Receipt struct {
	ID           string
	Reply        mail.Status
	PerRecipient []mail.Status // by recipient of the envelope, for LMTP
}

// Receive takes a message from a client that waits. r returns the message as received,
// with CRLF line ends only, and an error when the client went away. After an error, or a
// reply that is no success, nothing of the message is in the queue.
func (in *Intake) Receive(ctx context.Context, env *mail.Envelope, client pipeline.Client, r io.Reader) (Receipt, error) {
	rules := in.rules.Load()
	now := in.Clock()
	m := &receiving{in: in, rules: rules, id: in.IDs.New(now), now: now, client: client, env: *env, bodies: bodies{spool: in.Spool}}
	m.env.ID = m.id.String()
	m.notes, m.env.Notes = env.Notes, nil
	defer m.abort()
	if err := m.read(r); err != nil {
		return Receipt{}, in.statusOf(err)
	}
	// From here on the client waits for the answer, whatever it is: a session that breaks
	// down now cannot take back what it sent.
	ctx = context.WithoutCancel(ctx)
	if m.rules.Author != nil {
		if s := m.rules.Author(ctx, &m.env.Client, m.header); !s.IsZero() {
			in.Trace.Record(trace.Event{Type: trace.Refused, ID: m.env.ID, Client: clientName(&m.env), From: m.env.ReversePath.String(), To: recipients(m.env.Recipients), Status: s})
			return Receipt{}, s
		}
	}
	if err := m.expand(ctx); err != nil {
		return Receipt{}, err
	}
	settled := m.run(ctx)
	if !settled.Reply.IsZero() {
		in.Trace.Record(trace.Event{Type: trace.Refused, ID: m.env.ID, Client: clientName(&m.env), From: m.env.ReversePath.String(), To: m.to(), Status: settled.Reply})
		return m.receipt(settled), nil
	}
	batch := in.batch(m.source(), settled)
	if err := m.commit(ctx, batch); err != nil {
		return Receipt{}, in.statusOf(err)
	}
	in.Trace.Record(trace.Event{Type: trace.Accepted, ID: m.env.ID, Family: m.env.ID, Client: clientName(&m.env), From: m.env.ReversePath.String(), To: m.to(),
		Size: int64(len(m.header.Block())) + m.body.Size, Millis: float64(in.Clock().Sub(now).Microseconds()) / 1000})
	in.traceBatch(batch)
	return m.receipt(settled), nil
}

// statusOf gives the reply for an error, and logs what the client does not learn.
func (in *Intake) statusOf(err error) error {
	var s mail.Status
	switch {
	case errors.As(err, &s):
		return s
	case errors.Is(err, mail.ErrHeaderTooLarge):
		return mail.Permanent(552, 3, 4, "Message header is too large")
	case errors.Is(err, queue.ErrNoSpace):
		in.Log.Error("no space for mail", "error", err)
		return mail.Temporary(452, 3, 1, "Insufficient system storage, try again later")
	}
	return err
}

// receiving is one message on its way in.
type receiving struct {
	in     *Intake
	rules  *Rules
	id     queue.ID
	now    time.Time
	client pipeline.Client
	env    mail.Envelope     // recipients expanded by expand
	notes  map[string]string // of gates
	owners [][]int           // for each recipient the client gave, its numbers in env.Recipients

	bodies bodies
	writer *spool.Writer
	header mail.Header
	body   mail.Body
	kept   bool
}

// read takes the message from the client into header and spool.
func (m *receiving) read(r io.Reader) error {
	if err := m.in.Spool.Space(); err != nil {
		return err
	}
	header, rest, err := mail.ReadHeader(r, m.rules.HeaderSize)
	if err != nil {
		return err
	}
	m.writer = m.in.Spool.NewWriter()
	if _, err := m.writer.Write(rest); err != nil {
		return err
	}
	if _, err := copyBuffered(m.writer, r); err != nil {
		return err
	}
	if m.body, err = m.writer.Finish(); err != nil {
		return err
	}
	m.header, err = m.fix(header)
	return err
}

// buffers are for copying from the client to the spool.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func copyBuffered(w io.Writer, r io.Reader) (int64, error) {
	b := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(b)
	return io.CopyBuffer(struct{ io.Writer }{w}, r, b[:])
}

// expand rewrites the reverse-path, and replaces the recipients by what they are rewritten to
// and what their aliases lead to, each address once.
func (m *receiving) expand(ctx context.Context) error {
	if m.rules.Sender != nil && !m.env.ReversePath.IsZero() {
		var err error
		if m.env.ReversePath, err = m.rules.Sender(ctx, m.env.ReversePath); err != nil {
			return fmt.Errorf("intake: sender: %w", err)
		}
	}
	given := m.env.Recipients
	m.env.Recipients = make([]mail.Recipient, 0, len(given))
	m.owners = make([][]int, len(given))
	index := make(map[mail.Path]int, len(given))
	for i, r := range given {
		targets, err := m.rules.Expand(ctx, r.Path)
		if err != nil {
			return fmt.Errorf("intake: expand %s: %w", r.Path, err)
		}
		for _, t := range targets {
			k, seen := index[t]
			if !seen {
				k = len(m.env.Recipients)
				index[t] = k
				n := r
				n.Path = t
				if t != r.Path {
					n.Original = r.Path
				}
				m.env.Recipients = append(m.env.Recipients, n)
			}
			m.owners[i] = append(m.owners[i], k)
		}
	}
	if len(m.env.Recipients) == 0 {
		return mail.Permanent(550, 1, 1, "No recipient is left")
	}
	return nil
}

func (m *receiving) run(ctx context.Context) pipeline.Settlement {
	versions := m.rules.Pipeline.Run(ctx, pipeline.Message{Envelope: m.env, Family: m.env.ID, Header: m.header, Body: m.body, Run: queue.Run{Notes: m.notes}, Bodies: m.bodies.For(m.rules)})
	return pipeline.Settle(versions, len(m.env.Recipients), m.client)
}

// source says where the entries of this message come from.
func (m *receiving) source() source {
	return source{id: m.id, family: m.id, received: m.now, env: m.env, rules: m.rules}
}

// commit makes content and records durable.
func (m *receiving) commit(ctx context.Context, b queue.Batch) error {
	if len(b.Add) == 0 {
		return nil // all was discarded
	}
	original := names(b, m.body.Path) // unless a plugin replaced it
	if original {
		if err := m.writer.Sync(); err != nil {
			return err
		}
	}
	if err := m.bodies.sync(b); err != nil {
		return err
	}
	if err := m.in.Store.Commit(ctx, b); err != nil {
		return err
	}
	m.bodies.end(true)
	m.kept = original
	return nil
}

// abort gives up content that nothing refers to.
func (m *receiving) abort() {
	m.bodies.end(false)
	if m.writer != nil && !m.kept {
		m.writer.Abort()
	}
}

func (m *receiving) receipt(s pipeline.Settlement) Receipt {
	ok := mail.OK(250, 0, 0, "Ok: queued as "+m.env.ID)
	r := Receipt{ID: m.env.ID, Reply: s.Reply, PerRecipient: make([]mail.Status, len(m.owners))}
	if r.Reply.IsZero() {
		r.Reply = ok
	}
	for i, owned := range m.owners {
		// A group is answered by its best member: those refused are told by the trace.
		for _, k := range owned {
			if p := s.PerRecipient[k]; p.IsZero() {
				r.PerRecipient[i] = ok
			} else if r.PerRecipient[i].IsZero() || r.PerRecipient[i].Permanent() && p.Temporary() {
				r.PerRecipient[i] = p
			}
		}
	}
	return r
}

// to names the recipients for the trace: all of a few, else the first and a count.
func (m *receiving) to() string { return recipients(m.env.Recipients) }

func recipients(rs []mail.Recipient) string {
	switch len(rs) {
	case 0:
		return ""
	case 1:
		return rs[0].Path.String()
	}
	s := ""
	for i, r := range rs {
		if i == 5 {
			return fmt.Sprintf("%s and %d more", s, len(rs)-5)
		}
		if i > 0 {
			s += ", "
		}
		s += r.Path.String()
	}
	return s
}

func clientName(env *mail.Envelope) string {
	c := env.Client
	if !c.Addr.IsValid() {
		return ""
	}
	name := c.Addr.String()
	if c.User != "" {
		name = c.User + "@" + name
	}
	return name
}
