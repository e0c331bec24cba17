package callahead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/sdk/mail"
)

// Asker asks a next hop which addresses it would take mail for, as [smtpclient.Client.Ask]
// does.
type Asker interface {
	Ask(ctx context.Context, r route.Route, rcpts ...mail.Path) []mail.Status
}

// Options of a Knowledge.
type Options struct {
	Path  string // the file; it is made if it is missing
	Asker Asker
	// Max is how many addresses are kept. Default: 1,000,000.
	Max   int
	Log   *slog.Logger
	Clock func() time.Time
}

// Rules are what a reload may change.
type Rules struct {
	// Domains are those that servers behind us know, with where their mail goes.
	Domains map[mail.Domain]route.Route
	// Keep is how long an address is known after the server last took it, and Refresh the
	// age from which on the server is asked again while the address is taken meanwhile.
	Keep, Refresh time.Duration
	// KeepUnknown is how long an address stays unknown without asking again.
	KeepUnknown time.Duration
	Timeout     time.Duration // of one question, with all waiting for it
	Concurrency int           // questions at a time to one next hop
	// UnknownPerHour is about how many addresses that turn out not to exist a client may have us
	// ask in an hour. 0: no limit.
	UnknownPerHour int
}

// Answers.
var (
	unknown  = mail.Permanent(550, 1, 1, "No such user here")
	unasked  = mail.Temporary(450, 2, 0, "Recipient cannot be verified now, try again later")
	tooMany  = mail.Temporary(450, 7, 1, "Too many unknown recipients, try again later")
	stopping = mail.Temporary(451, 3, 2, "Gateway is stopping")
)

const (
	defaultMax = 1_000_000
	// takesAllFor is how long it is believed that a server does or does not take every address.
	takesAllFor = 24 * time.Hour
	// restAfterFailure is how long a next hop that could not be reached is not asked again.
	restAfterFailure = 5 * time.Second
	// trackedClients bounds the clients that are counted.
	trackedClients = 1 << 16
)

// Knowledge is what is known of recipients.
type Knowledge struct {
	o     Options
	store *store
	rules atomic.Pointer[Rules]
	asked *state.Cache[clientKey, count]

	mu     sync.Mutex
	flying map[mail.Path]*question
	hops   map[string]*hop // by key of the route
	closed bool
	work   sync.WaitGroup
	ctx    context.Context // ends when the Knowledge is closed
	cancel context.CancelFunc
}

// Open opens the file. Nothing is known of any domain until there are rules.
func Open(o Options) (*Knowledge, error) {
	if o.Path == "" || o.Asker == nil {
		return nil, errors.New("callahead: Path or Asker is missing")
	}
	if o.Max <= 0 {
		o.Max = defaultMax
	}
	k, err := newKnowledge(o)
	if err != nil {
		return nil, err
	}
	if k.store, err = openStore(o.Path, o.Max, k.o.Log); err != nil {
		return nil, fmt.Errorf("callahead: %s: %w", o.Path, err)
	}
	return k, nil
}

func newKnowledge(o Options) (*Knowledge, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	k := &Knowledge{o: o, asked: state.NewCache[clientKey, count](trackedClients), flying: make(map[mail.Path]*question), hops: make(map[string]*hop)}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.rules.Store(&Rules{})
	return k, nil
}

// Reload makes r the rules. What is known stays known.
func (k *Knowledge) Reload(r Rules) { k.rules.Store(&r) }

// Close ends what is being asked, writes what is waiting, and closes the file.
func (k *Knowledge) Close() error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.work.Wait()
	return k.store.close()
}

// Recipient says whether mail for p, an address in one of the domains of the rules, is
// taken: the zero Status if it is. A client is asked to wait while the server is.
func (k *Knowledge) Recipient(ctx context.Context, c *mail.Client, p mail.Path) mail.Status {
	r := k.rules.Load()
	to, ok := r.Domains[p.Domain]
	if !ok {
		return unasked
	}
	now := k.o.Clock()
	if takes, ok := k.store.domain(domainKey{p.Domain, to.Key}); ok && takes.known {
		if !within(now, takes.checked, takesAllFor) {
			k.refresh(r, to, mail.Path{Domain: p.Domain})
		}
		return mail.Status{}
	}
	f, ok, err := k.store.get(ctx, p.Fold())
	if err != nil {
		k.o.Log.Error("what is known of recipients cannot be read", "error", err)
	}
	if s, ok := r.answer(f, ok, now); ok {
		if f.known && !within(now, f.checked, r.Refresh) {
			k.refresh(r, to, p)
		}
		return s
	}
	return k.wait(ctx, c, r, to, p)
}

// answer is what a fact means for a client; false: the server has to be asked.
func (r *Rules) answer(f fact, ok bool, now time.Time) (mail.Status, bool) {
	switch {
	case ok && f.known && now.Sub(f.checked) < r.Keep:
		return mail.Status{}, true
	case ok && !f.known && within(now, f.checked, r.KeepUnknown):
		return unknown, true
	}
	return mail.Status{}, false
}

// within reports whether less than age has passed since t. What is in the future was
// written by another clock, and is not.
func within(now, t time.Time, age time.Duration) bool {
	since := now.Sub(t)
	return since > -time.Minute && since < age
}

// Learn takes what a next hop said of a recipient of a message.
func (k *Knowledge) Learn(p mail.Path, s mail.Status) {
	to, ok := k.rules.Load().Domains[p.Domain]
	if !ok || s.Remote == "" {
		return // not a domain of a server behind us, or nobody but us said that
	}
	switch {
	case s.Success():
		k.rested(to.Key)
		if takes, ok := k.store.domain(domainKey{p.Domain, to.Key}); !ok || !takes.known {
			k.store.put(p.Fold(), fact{true, k.o.Clock()})
		}
	case s.Permanent() && s.Enhanced[1] == 1 && s.Enhanced[2] == 1:
		k.store.put(p.Fold(), fact{false, k.o.Clock()})
	}
}
