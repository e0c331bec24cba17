package dkimkey

import (
	"context"
	"crypto"
	"errors"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimsig"
)

// Presence is what the DNS has under a key's name.
type Presence uint8

// What the DNS may have.
const (
	Unasked   Presence = iota
	Published          // the key
	Missing            // nothing
	Different          // another key, or none that can be used
	Unknown            // it does not answer
)

// String is the word for it; "" where nobody asked.
func (p Presence) String() string {
	return [...]string{Unasked: "", Published: "published", Missing: "missing", Different: "different", Unknown: "unknown"}[p]
}

// lookupTime limits one look-up.
const lookupTime = 5 * time.Second

// Name is where the key is published.
func (k *Key) Name() string { return k.Selector + "._domainkey." + k.Domain.String() }

// Look asks the DNS for the key.
func (k *Key) Look(ctx context.Context, r dkimsig.Resolver) Presence {
	record, err := Ask(ctx, r, k.Name())
	switch {
	case errors.Is(err, dkimsig.ErrDNS):
		return Unknown
	case errors.Is(err, dkimsig.ErrNoKey):
		return Missing
	case err != nil || !Same(record.Key, k.Signer.Public()) || record.Suits(k.Algorithm) != nil:
		return Different
	}
	return Published
}

// Ask fetches a record, within a time of its own. Errors are those of [dkimsig.Lookup].
func Ask(ctx context.Context, r dkimsig.Resolver, name string) (*dkimsig.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	return dkimsig.Lookup(ctx, r, name)
}

// Same reports whether two public keys are one.
func Same(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
