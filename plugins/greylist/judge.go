package greylist

import (
	"context"
	"strconv"
	"time"

	"github.com/postern-mail/postern/plugins/internal/peer"
	"github.com/postern-mail/postern/sdk/mail"
)

// A fact about a triplet or a client is a letter and the Unix time since when that holds.
const (
	waiting = 'w' // first seen
	passed  = 'p' // last known to pass
)

type fact struct {
	state byte
	since time.Time
}

func (f fact) encode() []byte { return strconv.AppendInt([]byte{f.state}, f.since.Unix(), 10) }

func decode(b []byte) (fact, bool) {
	if len(b) < 2 || b[0] != waiting && b[0] != passed {
		return fact{}, false
	}
	t, err := strconv.ParseInt(string(b[1:]), 10, 64)
	return fact{b[0], time.Unix(t, 0)}, err == nil
}

// answer is what becomes of a recipient.
type answer struct {
	why    string
	left   time.Duration // until it may pass; 0: it does
	waited time.Duration // above 0: it has just done so
}

// tries is how often a fact is read again that somebody else has changed meanwhile.
const tries = 5

// judge decides about one recipient. The first context is for questions to the state, the
// second one for those to the DNS.
func (p *Plugin) judge(state, ctx context.Context, e *mail.Envelope, recipient mail.Path) (answer, error) {
	from := peer.Network(e.Client.Addr).String()
	triplet := key(tripletKey, from, sender(e.ReversePath), recipient.Fold().String())
	client := key(clientKey, from)
	if p.s.ProvenBy == "domain" {
		client = key(clientKey, from, e.ReversePath.Domain.String())
	}
	for range tries {
		old, f, err := p.read(state, triplet, p.s.Lifetime)
		if err != nil {
			return answer{}, err
		}
		now := p.now()
		if f.state == passed {
			return answer{why: "passed: known"}, p.renew(state, triplet, old, f, p.s.Lifetime)
		}
		if ok, err := p.proven(state, client); err != nil || ok {
			return answer{why: "passed: proven"}, err
		}
		waited := now.Sub(f.since)
		next, life, a := fact{waiting, now}, p.s.Window, answer{left: p.s.Delay}
		switch {
		case f.state == waiting && waited >= 0 && waited < p.s.Delay:
			return answer{left: p.s.Delay - waited}, nil
		case f.state == waiting && waited >= p.s.Delay && waited < p.s.Window:
			next, life, a = fact{passed, now}, p.s.Lifetime, answer{why: "passed: waited", waited: waited}
		case p.s.ReverseName && p.named(ctx, e):
			return answer{why: "passed: reverse name"}, nil
		}
		done, err := p.host.CompareAndSwapState(state, triplet, old, next.encode(), life)
		if err != nil {
			return answer{}, err
		}
		if !done {
			continue // another session of the same sender was faster: see what it did
		}
		if next.state == passed {
			p.kept.put(triplet, now.Add(life))
			err = p.prove(state, client)
		}
		return a, err
	}
	return answer{why: "passed: busy"}, nil
}

// read reads a fact with the bytes that stand for it, nil if there is none. What is unknown
// to the state may have passed before a restart of the gateway.
func (p *Plugin) read(ctx context.Context, key string, life time.Duration) ([]byte, fact, error) {
	b, ok, err := p.host.State(ctx, key)
	if err != nil {
		return nil, fact{}, err
	}
	if !ok {
		if until, ok := p.kept.get(key); ok {
			return nil, fact{passed, until.Add(-life)}, nil
		}
		return nil, fact{}, nil
	}
	if b == nil {
		b = []byte{} // there is one, whatever it is
	}
	f, ok := decode(b)
	if ok && f.state == passed && p.now().Sub(f.since) >= life {
		f = fact{}
	}
	return b, f, nil
}

// renew lets what is used pass longer. An eighth of the time is as good as none: most
// messages need no write.
func (p *Plugin) renew(ctx context.Context, key string, old []byte, f fact, life time.Duration) error {
	now := p.now()
	if age := now.Sub(f.since); old != nil && age >= 0 && age < life/8 {
		return nil
	}
	// If somebody else was faster, he did the same.
	done, err := p.host.CompareAndSwapState(ctx, key, old, fact{passed, now}.encode(), life)
	if done {
		p.kept.put(key, now.Add(life))
	}
	return err
}

// proven reports whether a client passes with any sender.
func (p *Plugin) proven(ctx context.Context, client string) (bool, error) {
	if p.s.Proven == 0 {
		return false, nil
	}
	old, f, err := p.read(ctx, client, p.s.ProvenFor)
	if err != nil || f.state != passed {
		return false, err
	}
	return true, p.renew(ctx, client, old, f, p.s.ProvenFor)
}

// prove counts a triplet that has waited. Its client passes if there were enough.
func (p *Plugin) prove(ctx context.Context, client string) error {
	if p.s.Proven == 0 {
		return nil
	}
	n, err := p.host.CountState(ctx, countKey+client, 1, p.s.ProvenFor)
	if err != nil || n < int64(p.s.Proven) {
		return err
	}
	now := p.now()
	if err := p.host.SetState(ctx, client, fact{passed, now}.encode(), p.s.ProvenFor); err != nil {
		return err
	}
	p.kept.put(client, now.Add(p.s.ProvenFor))
	p.count("proven")
	return nil
}
