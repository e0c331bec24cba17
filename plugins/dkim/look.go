package dkim

import (
	"context"
	"crypto"
	"errors"
	"sync"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimsig"
)

// How the DNS is asked for our own keys.
const (
	lookupTime = 5 * time.Second
	lookups    = 8 // at the same time
)

// look asks the DNS for all keys of the slots.
func look(ctx context.Context, resolver dkimsig.Resolver, slots []*slot) {
	var wg sync.WaitGroup
	room := make(chan struct{}, lookups)
	for _, s := range slots {
		for _, g := range s.keys {
			room <- struct{}{}
			wg.Go(func() {
				defer func() { <-room }()
				g.dns = lookFor(ctx, resolver, g)
			})
		}
	}
	wg.Wait()
}

func lookFor(ctx context.Context, resolver dkimsig.Resolver, g *generation) presence {
	record, err := ask(ctx, resolver, g.Selector+"._domainkey."+g.Domain.String())
	switch {
	case errors.Is(err, dkimsig.ErrDNS):
		return unknown
	case errors.Is(err, dkimsig.ErrNoKey):
		return missing
	case err != nil || !same(record.Key, g.Signer.Public()) || record.Suits(g.Algorithm) != nil:
		return different
	}
	return published
}

func ask(ctx context.Context, resolver dkimsig.Resolver, name string) (*dkimsig.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	return dkimsig.Lookup(ctx, resolver, name)
}

func same(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
