package arc

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/plugins/internal/dkimsig"
)

// shown knows whether the DNS has our key: a seal that nobody can verify makes a chain fail that
// would pass without it. The DNS is asked now and then; one message waits for it, the others go
// by the answer before.
type shown struct {
	asking sync.Mutex // held while the DNS is asked

	mu   sync.Mutex // of what follows
	last dkimkey.Presence
	at   time.Time
}

// How long an answer is good for: while the key is missing the admin is about to publish it.
const (
	goodFor = 10 * time.Minute
	badFor  = time.Minute
)

// look returns what the DNS has; where it does not answer, what it had before.
func (s *shown) look(ctx context.Context, k *dkimkey.Key, r dkimsig.Resolver, now func() time.Time) dkimkey.Presence {
	last, fresh := s.known(now())
	if fresh {
		return last
	}
	if last == dkimkey.Unasked {
		s.asking.Lock() // the first answer is worth waiting for
	} else if !s.asking.TryLock() {
		return last
	}
	defer s.asking.Unlock()
	if last, fresh = s.known(now()); fresh {
		return last
	}
	there := k.Look(ctx, r)
	if ctx.Err() != nil {
		return last
	}
	if there == dkimkey.Unknown && last != dkimkey.Unasked {
		there = last
	}
	if there == dkimkey.Missing || there == dkimkey.Different {
		slog.Warn("nothing is sealed: the dns does not have the key", "name", k.Name(), "dns", there.String())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.at = there, now()
	return there
}

func (s *shown) known(now time.Time) (last dkimkey.Presence, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age, limit := now.Sub(s.at), badFor
	if s.last == dkimkey.Published {
		limit = goodFor
	}
	return s.last, s.last != dkimkey.Unasked && age >= 0 && age < limit
}
