package imapappend

import (
	"context"
	"slices"
	"sync"
	"time"
)

// idleTime is how long a connection waits for the next message.
const idleTime = 30 * time.Second

// pool bounds the connections in use, and keeps as many for the next messages.
type pool struct {
	slots chan struct{}
	mu    sync.Mutex
	idle  []*conn // the latest last
	timer *time.Timer
}

func newPool(n int) *pool { return &pool{slots: make(chan struct{}, n)} }

// get returns a connection for a user; kept: one that was kept. Call put.
func (p *pool) get(ctx context.Context, s *server, user string) (c *conn, kept bool, err error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	for {
		if c = p.take(s, user); c == nil {
			break
		}
		c.net.left.Store(maxSaid)
		if c.alive(ctx) {
			return c, true, nil
		}
		c.Close()
	}
	if c, err = connect(ctx, s, user); err != nil {
		<-p.slots
	}
	return c, false, err
}

func (p *pool) take(s *server, user string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range slices.Backward(p.idle) {
		if c.server == s && c.user == user {
			p.idle = slices.Delete(p.idle, i, i+1)
			return c
		}
	}
	return nil
}

// put gives a connection back; one that is of no use any more is closed.
func (p *pool) put(c *conn, useless bool) {
	defer func() { <-p.slots }()
	if useless {
		c.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.since = time.Now()
	p.idle = append(p.idle, c)
	if len(p.idle) > cap(p.slots) {
		go p.idle[0].bye()
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(idleTime, p.sweep)
	}
}

// sweep ends connections that nobody has used for a while.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = nil
	old := time.Now().Add(-idleTime)
	for len(p.idle) > 0 && !p.idle[0].since.After(old) {
		go p.idle[0].bye()
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	if len(p.idle) > 0 {
		p.timer = time.AfterFunc(idleTime-time.Since(p.idle[0].since), p.sweep)
	}
}

// close ends all connections that are kept.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}
