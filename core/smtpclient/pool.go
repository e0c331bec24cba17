package smtpclient

import (
	"slices"
	"sync"
	"time"
)

// pool keeps sessions that are not in use, for a short while.
type pool struct {
	limits Pool

	mu     sync.Mutex
	idle   map[target][]*session // the one used last is the last
	n      int
	closed bool
}

// get takes a session with t out of the pool, nil if there is none that still lives.
func (p *pool) get(t target) *session {
	for {
		p.mu.Lock()
		list := p.idle[t]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil
		}
		s := list[len(list)-1]
		p.remove(s)
		p.mu.Unlock()
		if !s.heard() {
			return s
		}
		s.close() // it said 421, or is gone
	}
}

// put takes over a session that is no longer needed.
func (p *pool) put(s *session) {
	p.mu.Lock()
	if s.broken || p.closed || s.messages >= p.limits.MaxMessages || p.n >= p.limits.MaxConns {
		p.mu.Unlock()
		s.quit()
		return
	}
	defer p.mu.Unlock()
	p.idle[s.target] = append(p.idle[s.target], s)
	p.n++
	if s.timer == nil {
		s.timer = time.AfterFunc(p.limits.MaxIdle, func() { p.expire(s) })
	} else {
		s.timer.Reset(p.limits.MaxIdle)
	}
}

// remove takes s out, if it is in. The caller holds mu.
func (p *pool) remove(s *session) bool {
	list := p.idle[s.target]
	i := slices.Index(list, s)
	if i < 0 {
		return false
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(p.idle, s.target)
	} else {
		p.idle[s.target] = list
	}
	p.n--
	s.timer.Stop()
	return true
}

func (p *pool) expire(s *session) {
	p.mu.Lock()
	mine := p.remove(s)
	p.mu.Unlock()
	if mine {
		s.quit()
	}
}

// close ends all idle sessions; sessions put back later end at once.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	var all []*session
	for _, list := range p.idle {
		for _, s := range list {
			s.timer.Stop()
			all = append(all, s)
		}
	}
	p.idle, p.n = make(map[target][]*session), 0
	p.mu.Unlock()
	for _, s := range all {
		s.quit()
	}
}
