package dkim

import (
	"context"
	"sync"

	"github.com/postern-mail/postern/plugins/internal/dkimsig"
)

// lookups is how many keys are asked for at the same time.
const lookups = 8

// look asks the DNS for all keys of the slots.
func look(ctx context.Context, resolver dkimsig.Resolver, slots []*slot) {
	var wg sync.WaitGroup
	room := make(chan struct{}, lookups)
	for _, s := range slots {
		for _, g := range s.keys {
			room <- struct{}{}
			wg.Go(func() {
				defer func() { <-room }()
				g.dns = g.Look(ctx, resolver)
			})
		}
	}
	wg.Wait()
}
