package pluginhost

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/pluginhost/pluginlog"
)

// When a plugin dies, one of the calls in it may have been the cause, and nobody knows
// which. All of them are suspects: each is asked again, alone, in a process started for it,
// which stands outside the rotation and ends afterwards. Whose process dies again is
// convicted. The others get their answers, within the calls that they are.
//
// This is for what concerns one message and may be asked twice: filters, deliveries (which have
// a key), plans (which have no side effects). Gates, directories and observers fail as they do.
//
// A process that the host itself killed (it hung, or was replaced) makes no suspects, and
// a call that merely takes too long is no death: nobody is convicted of slowness.
//
// A plugin may also be broken altogether, and then no message is to blame. So nobody is
// convicted before the plugin has answered something, nor after messages of several clients
// were convicted in a row without an answer in between: that death then counts as the plugin's.
// What one client sends makes no such row, however much it is: he could stop the plugin for
// everybody. How many of his messages are tried is for the caller to bound.

const (
	maxSuspects    = 256             // of one plugin, waiting for their trial; others fail
	maxConvictions = 3               // clients in a row, without any answer in between
	maxStack       = 8 << 10         // bytes of a [Failure]'s Stack
	reviveWait     = 5 * time.Second // a call waits so long for a plugin that is about to be back
)

// try asks again for a suspect of the death of p, and returns what comes of it. Without a
// trial that is f.
func (sl *slot) try(ctx context.Context, s *supervisor, p *process, f *Failure, client netip.Addr, do question) error {
	if !s.host.trials.enter() {
		return f
	}
	defer s.host.trials.leave()
	if sl.suspects.Add(1) > maxSuspects {
		sl.suspects.Add(-1)
		return f
	}
	defer sl.suspects.Add(-1)
	select {
	case sl.court <- struct{}{}:
		defer func() { <-sl.court }()
	case <-ctx.Done():
		return f
	}
	now := sl.sup.Load() // it may have been replaced meanwhile
	if now == nil || sl.disabled.Load() || p.hopeless.Load() {
		return f
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.host.life, cancel)()
	q, err := s.host.launch(ctx, now.spec)
	if err != nil {
		s.log.Error("no process for the trial of a message", "error", err)
		return f
	}
	defer q.kill()
	err = now.perform(ctx, q, do)
	second, failed := err.(*Failure)
	switch {
	case !failed:
		if err == nil {
			now.answered()
		}
		return err
	case !second.died:
		return second
	}
	return now.convict(s, p, q, second, client)
}

// convict decides about a message that q died of, alone, as p did before.
func (s *supervisor) convict(first *supervisor, p, q *process, f *Failure, client netip.Addr) error {
	select {
	case <-q.child.Exited():
	case <-time.After(outputGrace + time.Second):
	}
	how := q.child.End()
	f.Stack = lastBytes(how+"\n"+q.child.Err.Last(), maxStack)
	if !s.proven.Load() || !s.blames(client) {
		p.hopeless.Store(true) // the others need not try
		s.log.Error("plugin dies of any message", "how", how)
		return f
	}
	first.pardon(p)
	s.log.Error("plugin died twice of a message, which is convicted", "how", how)
	f.reason, f.Err = Convicted, fmt.Errorf("it died twice on this message (%s)", how)
	return f
}

// count decides about the delay after the death of p, unless it has been pardoned already.
func (s *supervisor) count(p *process, back *backoff) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.pardoned {
		return 0
	}
	p.counted = true
	return back.died(s.host.opt.Clock().Sub(p.started), p.answered.Load())
}

// lastBytes cuts a text at the front: what was said last matters most.
func lastBytes(s string, n int) string {
	if len(s) > n {
		s = s[len(s)-n:]
	}
	return pluginlog.Printable(s)
}

// answered notes that the plugin can answer.
func (s *supervisor) answered() {
	if !s.proven.Load() {
		s.proven.Store(true)
	}
	if s.inRow.Load() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.row = nil
		s.inRow.Store(false)
	}
}

// blames reports whether the plugin died of a message of the client, rather than of any: then
// he is in the row. The zero address is everybody's.
func (s *supervisor) blames(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if client.IsValid() && slices.Contains(s.row, client) {
		return true
	}
	if len(s.row) >= maxConvictions {
		return false
	}
	s.row = append(s.row, client)
	s.inRow.Store(true)
	return true
}

// pardon forgives the death of p, once: a message was its cause, and a hostile client must
// not be able to open the breaker, or make the plugin wait. A plugin that waits is started
// at once.
func (s *supervisor) pardon(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.pardoned {
		return
	}
	p.pardoned = true
	if !p.counted { // it will not be
		return
	}
	if s.phase == down {
		s.turnTo(soon)
	}
	select {
	case s.pardons <- struct{}{}:
	default: // so many wait that the next process starts at once anyway
	}
}
