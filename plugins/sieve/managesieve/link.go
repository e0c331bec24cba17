package managesieve

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is a connection whose waiting can be ended by others.
type link struct {
	net.Conn
	timeout time.Duration // for writing
	since   time.Time
	known   atomic.Bool // the client has logged in
	mu      sync.Mutex
	ended   time.Time // zero: not
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// farewell is how long clients may take to hear that this is the end.
const farewell = 5 * time.Second

// readBy sets the deadline for reading.
func (l *link) readBy(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended.IsZero() {
		t = longAgo
	}
	l.SetReadDeadline(t)
}

// writeBy gives the client its time to take an answer.
func (l *link) writeBy() {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := time.Now().Add(l.timeout)
	if !l.ended.IsZero() {
		t = l.ended.Add(farewell)
	}
	l.SetWriteDeadline(t)
}

// end ends waiting for the client, for good.
func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended.IsZero() {
		l.ended = time.Now()
	}
	l.SetReadDeadline(longAgo)
	l.SetWriteDeadline(l.ended.Add(farewell))
}

func (l *link) hasEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended.IsZero()
}

// linger lets the client read our last words: to close a connection with unread input would
// take them away from it.
func (l *link) linger() {
	const most, wait = 64 << 10, time.Second
	if c, ok := l.Conn.(interface{ CloseWrite() error }); !ok || c.CloseWrite() != nil {
		return
	}
	l.readBy(time.Now().Add(wait))
	io.CopyN(io.Discard, l.Conn, most)
}

// budget is memory that many share.
type budget struct{ left atomic.Int64 }

func (b *budget) take(n int64) bool {
	if b.left.Add(-n) < 0 {
		b.left.Add(n)
		return false
	}
	return true
}

func (b *budget) giveBack(n int64) { b.left.Add(n) }
