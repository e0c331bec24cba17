package gateway

import (
	"context"
	"sync/atomic"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/smtpd"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// currentGates are the gates of now: a reload makes others.
type currentGates struct{ atomic.Pointer[pipeline.Gates] }

func (g *Gateway) newGates(c *config.Config) *pipeline.Gates {
	return pipeline.NewGates(gateSteps(c, g.host), &g.tally, g.log)
}

// gateSteps are the gates among the plugins, in the configuration's order.
func gateSteps(c *config.Config, host *pluginhost.Host) []pipeline.GateStep {
	var steps []pipeline.GateStep
	for _, p := range c.Plugins {
		if g, ok := host.Gate(p.Name); ok {
			m := g.Manifest()
			_, filter := host.Filter(p.Name)
			steps = append(steps, pipeline.GateStep{Name: p.Name, Gate: g, Stages: m.Stages, Origins: origins(p, m), OnFailure: failurePolicy(p.OnFailure), Filter: filter})
		}
	}
	return steps
}

// guard is what the sessions of one listener ask: the policy, and when that has no
// objection the gates. It has the client's name looked up from the beginning, and waits for it
// before the first gate is asked.
type guard struct {
	*currentPolicy
	gates      *currentGates
	names      *currentNames
	submission bool
}

// Session begins a session. Where there are no gates there is nothing to remember.
func (g *guard) Session() smtpd.Policy {
	if !g.gates.Load().Any(sdk.AtConnect | sdk.AtHelo) {
		return g
	}
	return &visit{guard: g}
}

// Connect is asked before the banner.
func (g *guard) Connect(ctx context.Context, c *mail.Client) mail.Status {
	_, st := g.connect(ctx, c)
	return st
}

func (g *guard) connect(ctx context.Context, c *mail.Client) (map[string]string, mail.Status) {
	if st := g.currentPolicy.Connect(ctx, c); refused(st) {
		return nil, st
	}
	g.names.begin(c.Addr)
	return g.client(ctx, sdk.AtConnect, c, nil)
}

// Hello is asked at HELO, EHLO and LHLO.
func (g *guard) Hello(ctx context.Context, c *mail.Client) mail.Status {
	_, st := g.client(ctx, sdk.AtHelo, c, nil)
	return st
}

// client asks the gates of a stage at which there is a client and no envelope, and returns
// notes with theirs.
func (g *guard) client(ctx context.Context, stage sdk.Stage, c *mail.Client, notes map[string]string) (map[string]string, mail.Status) {
	gates := g.gates.Load()
	if !gates.Any(stage) {
		return notes, mail.Status{}
	}
	g.names.fill(ctx, c)
	a := &sdk.Attempt{Stage: stage, Envelope: mail.Envelope{Origin: mail.Incoming, Client: *c, Notes: notes}}
	if g.submission || c.Class != mail.Stranger {
		a.Envelope.Origin = mail.Submitted
	}
	st := gates.Ask(ctx, a)
	return a.Envelope.Notes, st
}

// Begin is asked at MAIL, after Mail.
func (g *guard) Begin(ctx context.Context, e *mail.Envelope, size int64) mail.Status {
	gates := g.gates.Load()
	if !gates.Any(sdk.AtMail) {
		return mail.Status{}
	}
	g.names.fill(ctx, &e.Client)
	a := &sdk.Attempt{Stage: sdk.AtMail, Envelope: *e, Size: size}
	st := gates.Ask(ctx, a)
	e.Notes = a.Envelope.Notes
	return st
}

// Recipient is asked at RCPT.
func (g *guard) Recipient(ctx context.Context, e *mail.Envelope, rcpt mail.Path) mail.Status {
	if st := g.currentPolicy.Recipient(ctx, e, rcpt); refused(st) {
		return st
	}
	gates := g.gates.Load()
	if !gates.Any(sdk.AtRcpt) {
		return mail.Status{}
	}
	g.names.fill(ctx, &e.Client)
	a := &sdk.Attempt{Stage: sdk.AtRcpt, Envelope: *e, Recipient: rcpt, Accepted: len(e.Recipients)}
	a.Envelope.Recipients = nil
	st := gates.Ask(ctx, a)
	e.Notes = a.Envelope.Notes
	return st
}

func refused(st mail.Status) bool { return !st.IsZero() && !st.Success() }

// visit is a guard in one session. It keeps what gates noted about the client: at connect
// for good, at HELO until the next one.
type visit struct {
	*guard
	connected, greeted map[string]string
}

// Connect is asked before the banner.
func (v *visit) Connect(ctx context.Context, c *mail.Client) (st mail.Status) {
	v.connected, st = v.connect(ctx, c)
	v.greeted = v.connected
	return st
}

// Hello is asked at HELO, EHLO and LHLO.
func (v *visit) Hello(ctx context.Context, c *mail.Client) (st mail.Status) {
	v.greeted, st = v.client(ctx, sdk.AtHelo, c, v.connected)
	return st
}

// Begin is asked at MAIL, after Mail.
func (v *visit) Begin(ctx context.Context, e *mail.Envelope, size int64) mail.Status {
	e.Notes = v.greeted
	return v.guard.Begin(ctx, e, size)
}

var (
	_ smtpd.SessionPolicy  = (*guard)(nil)
	_ smtpd.EnvelopePolicy = (*visit)(nil)
	_ smtpd.HelloPolicy    = (*visit)(nil)
)
