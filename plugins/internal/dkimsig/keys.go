package dkimsig

import (
	"context"
	"errors"
	"net"
	"time"
)

// Resolver asks the DNS for texts. [net.Resolver] is one.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// ErrNoKey says that the DNS has no key under the name, and says so for good.
var ErrNoKey = errors.New("there is no key in the DNS")

// ErrDNS says that the DNS did not answer, so that nothing is known.
var ErrDNS = errors.New("the DNS does not answer")

// maxRecords is how many texts of one name are looked at.
const maxRecords = 4

// Lookup fetches the key of a name. An error is ErrDNS for what may pass, and for good
// otherwise.
func Lookup(ctx context.Context, r Resolver, name string) (*Record, error) {
	texts, err := r.LookupTXT(ctx, name)
	if err != nil {
		if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound && !dns.IsTemporary && !dns.IsTimeout {
			return nil, ErrNoKey
		}
		return nil, ErrDNS
	}
	// Several are undefined (RFC 6376 §3.6.2.2); one that is a key counts.
	last := ErrNoKey
	var record *Record
	for _, text := range texts[:min(len(texts), maxRecords)] {
		found, err := ParseRecord(text)
		if err == nil {
			return found, nil
		}
		if record == nil {
			record, last = found, err
		}
	}
	return record, last
}

// Keys looks up keys for one message, each once, at the same time.
type Keys struct {
	ctx     context.Context
	r       Resolver
	limit   time.Duration
	pending map[string]*lookup
}

type lookup struct {
	ctx    context.Context
	done   chan struct{}
	record *Record
	err    error
}

// NewKeys returns an empty set; ctx ends all its look-ups, each of which takes at most limit.
func NewKeys(ctx context.Context, r Resolver, limit time.Duration) *Keys {
	return &Keys{ctx, r, limit, make(map[string]*lookup)}
}

// Start begins to look for a name.
func (k *Keys) Start(name string) {
	if k.pending[name] != nil {
		return
	}
	ctx, cancel := context.WithTimeout(k.ctx, k.limit)
	l := &lookup{ctx: ctx, done: make(chan struct{})}
	k.pending[name] = l
	go func() {
		defer cancel()
		defer close(l.done)
		l.record, l.err = Lookup(ctx, k.r, name)
	}()
}

// Get waits for the key of a name. Errors are those of [Lookup].
func (k *Keys) Get(name string) (*Record, error) {
	k.Start(name)
	l := k.pending[name]
	select {
	case <-l.done:
	case <-l.ctx.Done():
		select {
		case <-l.done:
		default: // the resolver does not heed its context
			return nil, ErrDNS
		}
	}
	return l.record, l.err
}
