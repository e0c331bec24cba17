package callahead

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk/mail"
)

// question is one that is being asked, and all who wait for its answer.
type question struct {
	done   chan struct{}
	answer mail.Status // once done is closed
}

// hop is a next hop that is asked.
type hop struct {
	asking int           // questions under way
	freed  chan struct{} // closed and replaced when one ends
	rests  time.Time     // it could not be reached: not before then
}

// wait asks, or waits for who asks the same, and returns the answer for a client.
func (k *Knowledge) wait(ctx context.Context, c *mail.Client, r *Rules, to route.Route, p mail.Path) mail.Status {
	key := p.Fold()
	counted := false
	k.mu.Lock()
	q, ok := k.flying[key]
	if !ok {
		// The answer may have come since the caller looked.
		f, ok := k.store.lately(key)
		if s, ok := r.answer(f, ok, k.o.Clock()); ok {
			k.mu.Unlock()
			return s
		}
		if counted = c.Class == mail.Stranger && r.UnknownPerHour > 0; counted && !k.take(c.Addr, r.UnknownPerHour) {
			k.mu.Unlock()
			return tooMany
		}
		if q = k.begin(r, to, p, true); q == nil {
			k.mu.Unlock()
			return stopping
		}
	}
	k.mu.Unlock()
	select {
	case <-q.done:
	case <-ctx.Done():
		return unasked
	}
	if counted && !q.answer.Permanent() {
		k.giveBack(c.Addr)
	}
	return q.answer
}

// refresh asks in the background, if nobody does and there is room. The zero local part asks
// only whether the server takes every address.
func (k *Knowledge) refresh(r *Rules, to route.Route, p mail.Path) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.flying[p.Fold()] == nil {
		k.begin(r, to, p, false)
	}
}

// begin starts a question. It returns nil when it cannot be asked: the gateway stops, or, for
// who does not want to wait, there is no room. The caller holds mu.
func (k *Knowledge) begin(r *Rules, to route.Route, p mail.Path, waits bool) *question {
	h := k.hops[to.Key]
	if h == nil {
		h = &hop{freed: make(chan struct{})}
		k.hops[to.Key] = h
	}
	if k.closed || !waits && (h.asking >= r.Concurrency || k.o.Clock().Before(h.rests)) {
		return nil
	}
	if !waits {
		h.asking++
	}
	q := &question{done: make(chan struct{}), answer: unasked}
	key := p.Fold()
	k.flying[key] = q
	k.work.Go(func() {
		ctx, cancel := context.WithTimeout(k.ctx, r.Timeout)
		defer cancel()
		if !waits || k.enter(ctx, r, h) {
			q.answer = k.ask(ctx, h, to, p)
		}
		k.mu.Lock()
		delete(k.flying, key)
		k.mu.Unlock()
		close(q.done)
	})
	return q
}

// enter waits for room at a next hop, and reports whether there is some and it does not rest.
func (k *Knowledge) enter(ctx context.Context, r *Rules, h *hop) bool {
	for {
		k.mu.Lock()
		if k.o.Clock().Before(h.rests) || ctx.Err() != nil {
			k.mu.Unlock()
			return false
		}
		if h.asking < r.Concurrency {
			h.asking++
			k.mu.Unlock()
			return true
		}
		freed := h.freed
		k.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
	}
}

func (k *Knowledge) leave(h *hop, rest bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h.asking--
	if h.rests = (time.Time{}); rest {
		h.rests = k.o.Clock().Add(restAfterFailure)
	}
	close(h.freed)
	h.freed = make(chan struct{})
}

// rested ends the rest of a next hop: it is there again.
func (k *Knowledge) rested(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.hops[key]; h != nil {
		h.rests = time.Time{}
	}
}

// ask asks a next hop at which there is room, notes the answer and returns what it means for a client.
func (k *Knowledge) ask(ctx context.Context, h *hop, to route.Route, p mail.Path) mail.Status {
	domain := domainKey{p.Domain, to.Key}
	takes, ok := k.store.domain(domain)
	madeUp := !ok || !within(k.o.Clock(), takes.checked, takesAllFor)
	var rcpts []mail.Path
	if p.Local != "" {
		rcpts = append(rcpts, p)
	}
	if madeUp {
		rcpts = append(rcpts, mail.Path{Local: "no-such-user-" + strings.ToLower(rand.Text()), Domain: p.Domain})
	}
	if len(rcpts) == 0 { // somebody asked meanwhile
		k.leave(h, false)
		return mail.Status{}
	}
	res := k.o.Asker.Ask(ctx, to, rcpts...)
	k.leave(h, unreached(res[0]))
	if madeUp {
		k.noteDomain(domain, takes.known, res[len(res)-1])
	}
	if p.Local == "" {
		return mail.Status{}
	}
	return k.note(domain, p, res[0])
}

// note takes the answer about an address.
func (k *Knowledge) note(d domainKey, p mail.Path, s mail.Status) mail.Status {
	switch {
	case s.Success():
		if takes, ok := k.store.domain(d); !ok || !takes.known {
			k.store.put(p.Fold(), fact{true, k.o.Clock()})
		}
		return mail.Status{}
	case noSuchUser(s):
		k.store.put(p.Fold(), fact{false, k.o.Clock()})
		return unknown
	}
	level := slog.LevelInfo
	if s.Permanent() { // it refuses us, or the question: somebody has to look at that
		level = slog.LevelWarn
	}
	k.o.Log.Log(context.Background(), level, "recipient cannot be verified", "to", p.String(), "next_hop", d.hop, "status", s.Error())
	return unasked
}

// noteDomain takes the answer about an address that nobody has.
func (k *Knowledge) noteDomain(d domainKey, took bool, s mail.Status) {
	switch {
	case s.Success():
		k.o.Log.Warn("next hop takes every address: recipients of the domain are not verified", "domain", d.domain.String(), "next_hop", d.hop)
		k.store.putDomain(d, fact{true, k.o.Clock()})
	case noSuchUser(s):
		if took {
			k.o.Log.Info("next hop does not take every address any more: recipients of the domain are verified", "domain", d.domain.String(), "next_hop", d.hop)
		}
		k.store.putDomain(d, fact{false, k.o.Clock()})
	}
}

// noSuchUser reports whether a next hop said that an address does not exist. A refusal for
// another reason (RFC 3463: a mailbox that is full, policy, a protocol error) does not say
// that: who answers 550 for it would guess.
func noSuchUser(s mail.Status) bool {
	if !s.Permanent() || s.Remote == "" {
		return false
	}
	switch s.Enhanced[1] {
	case 0:
		return s.Code == 550 || s.Code == 551 || s.Code == 553 || s.Code == 554 // RFC 5321 §4.2.3; not 552, storage, nor 50x, syntax
	case 1:
		return true
	case 2:
		return s.Enhanced[2] <= 1 // other, disabled; not full or too large
	}
	return false
}

// unreached reports whether a next hop was not there or did not want to talk.
func unreached(s mail.Status) bool {
	return s.Temporary() && (s.Enhanced[1] == 4 || s.Code == 421 || s.Enhanced[1] == 3 && s.Enhanced[2] == 2)
}
