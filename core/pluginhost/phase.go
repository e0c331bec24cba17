package pluginhost

import (
	"context"
	"time"
)

// phase says whether it is worth to wait for a process.
type phase uint8

const (
	running phase = iota
	soon          // there will be one in a moment
	down
	stopped // for good
)

// turnTo changes the phase and wakes who waits. The caller holds mu.
func (s *supervisor) turnTo(p phase) {
	s.phase = p
	close(s.turn)
	s.turn = make(chan struct{})
}

// await waits for a process that is about to come, or for the end of the trials that decide
// about it. It reports whether it is worth to look again.
func (s *supervisor) await(ctx context.Context, patience <-chan time.Time) bool {
	s.mu.Lock()
	phase, turn, last := s.phase, s.turn, s.last
	s.mu.Unlock()
	var trials chan struct{}
	switch phase {
	case running:
		if !last.isDead() && !last.calls.isClosed() {
			return true // it has just come
		}
	case soon:
	case down:
		if !last.calls.busy() {
			return false
		}
		trials = last.calls.idle
	case stopped:
		return false
	}
	select {
	case <-turn:
		return true
	case <-trials:
		return true
	case <-patience:
	case <-ctx.Done():
	}
	return false
}
