// Package clientname finds the names of clients: what their addresses are called in the DNS, and
// whether that name leads back to the address.
//
// It promises that nobody waits for a name longer than [Options.Timeout] from when it was first
// wanted, and that a DNS that does not answer is waited for once, not once a session. What it
// keeps, and how many questions are under way, is bounded. A name that it gives is a host name in
// lower case, verified or not as the resolver says: one that is not is anybody's word. "" is none,
// and also one that could not be found out: no decision may hang on that difference here. Loopback
// has no name worth a question.
//
// It knows neither sessions nor what names are for, and keeps nothing durable. [Names] are safe
// for concurrent use; a look-up outlives the session that wanted it, but not its time.
package clientname

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-mail/postern/core/resolver"
)

// How long an answer is good for. The resolver keeps records for as long as their zone says;
// this is for what it does not keep: how the whole look-up ended.
const (
	keepAnswer  = 5 * time.Minute
	keepFailure = time.Minute // the DNS did not say
)

// Resolver is what knows names; see [resolver.Resolver].
type Resolver interface {
	LookupPTR(ctx context.Context, addr netip.Addr) (name string, verified bool, err error)
}

// Options of Names.
type Options struct {
	Resolver Resolver
	Timeout  time.Duration    // of a look-up; default 3 s
	Parallel int              // look-ups at a time, the others wait within their time; default 100
	Size     int              // clients that are remembered, those under way included; default 5,000
	Clock    func() time.Time // default: time.Now
}

// Names are the names of clients. A nil *Names knows none.
type Names struct {
	o     Options
	slots chan struct{}

	mu sync.Mutex
	m  map[netip.Addr]*entry
}

// entry is one client. What follows done is set, under mu, when the look-up ends.
type entry struct {
	done     context.Context // ends with the look-up, or with its time
	ended    bool
	name     string
	verified bool
	expires  time.Time
}

// New returns Names that have asked for nothing yet.
func New(o Options) *Names {
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Parallel <= 0 {
		o.Parallel = 100
	}
	if o.Size <= 0 {
		o.Size = 5_000
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Names{o: o, slots: make(chan struct{}, o.Parallel), m: make(map[netip.Addr]*entry)}
}

// Begin has the name of a client looked up, beside the caller, unless it is known.
func (n *Names) Begin(addr netip.Addr) { n.find(addr) }

// Name returns the name of a client, "" if there is none, and whether it leads back to the client.
// It begins the look-up if nobody has, and waits for its end, or for that of ctx.
func (n *Names) Name(ctx context.Context, addr netip.Addr) (name string, verified bool) {
	e := n.find(addr)
	if e == nil {
		return "", false
	}
	select {
	case <-e.done.Done():
	case <-ctx.Done():
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return e.name, e.verified
}

// find returns the entry of a client, with its look-up begun; nil where none is made.
func (n *Names) find(addr netip.Addr) *entry {
	addr = addr.Unmap().WithZone("")
	if n == nil || !addr.IsValid() || addr.IsLoopback() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.o.Clock()
	if e := n.m[addr]; e != nil && (!e.ended || now.Before(e.expires)) {
		return e
	}
	delete(n.m, addr)
	if !n.room() {
		return nil
	}
	ctx, end := context.WithTimeout(context.Background(), n.o.Timeout)
	e := &entry{done: ctx}
	n.m[addr] = e
	go n.lookUp(ctx, end, addr, e)
	return e
}

// room makes place for one more; false: all that are remembered are under way. The caller
// holds mu.
func (n *Names) room() bool {
	if len(n.m) < n.o.Size {
		return true
	}
	for a, e := range n.m { // their order is random enough
		if e.ended {
			delete(n.m, a)
			return true
		}
	}
	return false
}

func (n *Names) lookUp(ctx context.Context, end context.CancelFunc, addr netip.Addr, e *entry) {
	defer end() // after all else: it is what others wait for
	var name string
	var verified bool
	var err error
	select {
	case n.slots <- struct{}{}:
		name, verified, err = n.o.Resolver.LookupPTR(ctx, addr)
		<-n.slots
	case <-ctx.Done():
		err = ctx.Err()
	}
	keep := keepAnswer
	if err != nil || !resolver.IsHostName(name) {
		name, verified = "", false
	}
	if err != nil && !errors.Is(err, resolver.ErrNotFound) && !errors.Is(err, resolver.ErrNoData) {
		keep = keepFailure
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e.ended, e.name, e.verified, e.expires = true, name, verified, n.o.Clock().Add(keep)
}
