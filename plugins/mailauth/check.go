package mailauth

import (
	"context"
	"fmt"
	"sync"

	"github.com/postern-mail/postern/plugins/internal/arcchain"
	"github.com/postern-mail/postern/plugins/internal/dkimverify"
	"github.com/postern-mail/postern/plugins/internal/dmarc"
	"github.com/postern-mail/postern/plugins/internal/peer"
	"github.com/postern-mail/postern/plugins/internal/spf"
	"github.com/postern-mail/postern/sdk/mail"
)

// facts are what is known of a message.
type facts struct {
	client mail.Client
	// reverse is the domain of the reverse-path, or of HELO for the null reverse-path, if
	// SPF was about it.
	reverse  mail.Domain
	sender   mail.Path
	iprev    iprev
	spf      spf.Outcome
	dkim     []dkimverify.Result
	authors  []mail.Domain
	unclear  error // too many authors
	dmarc    []dmarc.Result
	arc      *arcchain.Chain
	vouchers []string // methods that authenticated the reverse-path: "spf", "dkim"
}

// check runs the methods beside each other. An error means that ctx has ended, or that the
// message could not be read.
func (p *Plugin) check(ctx context.Context, m *mail.Message) (*facts, error) {
	f := &facts{client: m.Envelope.Client, sender: m.Envelope.ReversePath}
	f.authors, f.unclear = authors(m.Header)
	dnsCtx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	var g group
	g.run(func() error {
		f.iprev = checkIprev(dnsCtx, limit(p.resolver, 1+peer.MaxNames), f.client)
		return nil
	})
	g.run(func() error { f.spf = p.checkSPF(dnsCtx, m); return nil })
	g.run(func() (err error) { f.dkim, err = p.dkim.Verify(ctx, m); return err })
	g.run(func() (err error) { f.arc, err = p.checkARC(ctx, m); return err })
	// What the authors' domains want is asked for meanwhile; each has limits of its own.
	policies := make([]*dmarc.Evaluator, len(f.authors))
	for i, a := range f.authors {
		policies[i] = dmarc.New(limit(p.resolver, dmarcLookups))
		g.run(func() error { policies[i].Evaluate(dnsCtx, a, nil); return nil })
	}
	if err := g.wait(); err != nil {
		return nil, err
	}
	if d, err := mail.ParseDomain(f.spf.Domain); err == nil {
		f.reverse = d
	}
	ids := f.identifiers()
	alignCtx, cancelAlign := context.WithTimeout(ctx, p.timeout)
	defer cancelAlign()
	f.dmarc = make([]dmarc.Result, len(f.authors))
	for i, a := range f.authors {
		g.run(func() error { f.dmarc[i] = policies[i].Evaluate(alignCtx, a, ids); return nil })
	}
	g.run(func() error { f.vouchers = p.vouchers(alignCtx, f); return nil })
	if err := g.wait(); err != nil {
		return nil, err
	}
	return f, ctx.Err()
}

func (p *Plugin) checkSPF(ctx context.Context, m *mail.Message) spf.Outcome {
	env := &m.Envelope
	return spf.Check(ctx, limit(p.resolver, spfLookups), spf.Query{
		IP: env.Client.Addr, Helo: env.Client.Helo, Local: env.ReversePath.Local, Domain: env.ReversePath.Domain.String(),
	})
}

// identifiers are what SPF and DKIM authenticated. That of HELO counts for the null
// reverse-path (RFC 7208 §2.4).
func (f *facts) identifiers() []dmarc.Identifier {
	var ids []dmarc.Identifier
	if f.spf.Result == spf.Pass || f.spf.Result == spf.TempError {
		ids = append(ids, dmarc.Identifier{Domain: f.reverse, Pending: f.spf.Result == spf.TempError})
	}
	for _, d := range f.dkim {
		if d.Value == dkimverify.Pass || d.Value == dkimverify.TempError {
			ids = append(ids, dmarc.Identifier{Domain: d.Domain, DKIM: true, Pending: d.Value == dkimverify.TempError})
		}
	}
	return ids
}

// vouchers says by which methods the domain of the reverse-path is authenticated: whether a
// bounce to it goes to whom it should.
func (p *Plugin) vouchers(ctx context.Context, f *facts) []string {
	if f.sender.IsZero() {
		return nil
	}
	var out []string
	if f.spf.Result == spf.Pass {
		out = append(out, "spf")
	}
	walks := dmarc.New(limit(p.resolver, dmarcLookups))
	for _, d := range f.dkim {
		if d.Value != dkimverify.Pass {
			continue
		}
		if ok, err := walks.Aligned(ctx, f.sender.Domain, d.Domain, false); ok && err == nil {
			return append(out, "dkim")
		}
	}
	return out
}

// group runs functions beside each other. A panic in one is an error, as it would be in the
// call itself.
type group struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

func (g *group) run(fn func() error) {
	g.wg.Go(func() {
		var err error
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v", r)
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.err == nil {
				g.err = err
			}
		}()
		err = fn()
	})
}

func (g *group) wait() error {
	g.wg.Wait()
	return g.err
}
