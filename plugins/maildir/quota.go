package maildir

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// hasty is how soon after a count that said "full" changes in the mailbox lead to another.
const hasty = 10 * time.Second

var errFull = mail.Temporary(452, 2, 2, "Mailbox full")

// meters watch over the quotas of the mailboxes that are used at the moment.
type meters struct {
	mu sync.Mutex
	m  map[string]*meter
}

// meter is one mailbox: one decision at a time, and what is being stored counts already.
type meter struct {
	mu      sync.Mutex
	users   int // guarded by meters.mu
	pending amount
	counted time.Time // when it was counted here last
	wrote   amount    // the limit that was written into the file here
	written bool
	warning bool // the owner is being told
}

func newMeters() meters { return meters{m: make(map[string]*meter)} }

func (ms *meters) enter(root string) *meter {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := ms.m[root]
	if m == nil {
		if len(ms.m) >= maxBoxes {
			for old, m := range ms.m {
				if m.users == 0 {
					delete(ms.m, old)
					break
				}
			}
		}
		m = &meter{}
		ms.m[root] = m
	}
	m.users++
	return m
}

func (ms *meters) leave(m *meter) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m.users--
}

// taking is room in a mailbox that is taken for a message.
type taking struct {
	p       *Plugin
	root    string
	m       *meter
	size    amount
	limit   amount
	used    amount // with the message, and with others that are being stored
	limited bool
}

// take takes room for a message, or says that there is none. Call release.
func (p *Plugin) take(ctx context.Context, root string, d *sdk.Delivery) (*taking, error) {
	t := &taking{p: p, root: root, size: amount{d.Message.Size(), 1}, limit: p.limit(ctx, d.Recipient)}
	if err := tooLarge(t.size, t.limit); err != nil {
		return nil, err
	}
	t.m = p.meters.enter(root)
	if t.limited = t.limit != (amount{}); !t.limited {
		return t, nil
	}
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	used, err := p.used(root, t.m, t.limit, t.size)
	if err != nil {
		p.meters.leave(t.m)
		return nil, err
	}
	t.used = used.plus(t.size)
	if t.used.exceeds(t.limit) && !exempt(d) {
		p.meters.leave(t.m)
		return nil, errFull
	}
	t.m.pending = t.m.pending.plus(t.size)
	return t, nil
}

// tooLarge refuses for good a message for which the mailbox will never have room.
func tooLarge(message, limit amount) error {
	if limit.bytes > 0 && message.bytes > limit.bytes {
		return mail.Permanent(552, 2, 3, "Message is larger than the mailbox may be")
	}
	return nil
}

// exempt: a short message of the gateway itself, that the mailbox is full for example, has to
// get in.
func exempt(d *sdk.Delivery) bool {
	return d.Message.Envelope.Origin == mail.Internal && d.Message.Size() <= 16<<10
}

// count notes that the message is there, and not on its way any more: nobody sees it twice.
func (t *taking) count() { t.end(func() { t.p.note(t.root, t.size) }) }

// release gives back what is not needed any more.
func (t *taking) release() { t.end(func() {}) }

func (t *taking) end(note func()) {
	if t.m == nil {
		return
	}
	t.m.mu.Lock()
	note()
	if t.limited {
		t.m.pending = t.m.pending.plus(amount{-t.size.bytes, -t.size.messages})
	}
	t.m.mu.Unlock()
	t.p.meters.leave(t.m)
	t.m = nil
}

// used is what is in a mailbox, with what is being stored. If that and more is above the
// limit, the file is not believed unless it is fresh. The caller has the meter's lock.
func (p *Plugin) used(root string, m *meter, limit, more amount) (amount, error) {
	s, err := readSizes(root)
	foreign := m.written && limit == m.wrote // another program has limits of its own, and may
	if errors.Is(err, errNoSizes) || err == nil && s.limit != limit && !foreign {
		s, err = p.recount(root, m, limit)
	}
	if err != nil {
		return amount{}, err
	}
	used := s.total.plus(m.pending)
	if used.plus(more).exceeds(limit) && p.doubtful(root, m, &s) {
		if s, err = p.recount(root, m, limit); err != nil {
			return amount{}, err
		}
		used = s.total.plus(m.pending)
	}
	return used, nil
}

// doubtful reports whether a count that says "full" may be wrong: it is old, it was added to,
// or the mailbox has changed since, as when a reader that knows nothing of quotas removed
// messages.
func (p *Plugin) doubtful(root string, m *meter, s *sizes) bool {
	now := p.now()
	if now.Sub(m.counted) < hasty {
		return false
	}
	if s.lines > 1 || now.Sub(s.time) > recount {
		return true
	}
	changed, err := p.changed(root)
	return err == nil && !changed.Before(s.time) // at the same time: file systems have coarse clocks
}

func (p *Plugin) recount(root string, m *meter, limit amount) (sizes, error) {
	s, err := p.count(root, limit)
	if err == nil {
		m.counted, m.wrote, m.written = p.now(), limit, true
	}
	return s, err
}

// Room says whether a message of that size would be taken now.
func (p *Plugin) Room(ctx context.Context, to mail.Path, bytes int64) error {
	limit := p.limit(ctx, to)
	if limit == (amount{}) {
		return nil
	}
	root, err := p.tree.root(to)
	if err != nil {
		return err
	}
	m := p.meters.enter(root)
	defer p.meters.leave(m)
	m.mu.Lock()
	defer m.mu.Unlock()
	more := amount{max(bytes, 1), 1}
	if err := tooLarge(more, limit); err != nil {
		return err
	}
	used, err := p.used(root, m, limit, more)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		used = amount{} // nothing was delivered yet
	case err != nil:
		return err
	}
	if used.plus(more).exceeds(limit) {
		return errFull
	}
	return nil
}

// limits are what mailboxes may hold, as the gateway said of late.
type limits struct {
	mu sync.Mutex
	m  map[mail.Path]known
}

type known struct {
	limit amount
	until time.Time
}

const (
	limitKeep = time.Minute
	limitTime = 5 * time.Second
)

func newLimits() limits { return limits{m: make(map[mail.Path]known)} }

// limit is what a mailbox may hold: what the gateway says of the account, else the settings.
// When the gateway gives no answer, what it said before holds.
func (p *Plugin) limit(ctx context.Context, to mail.Path) amount {
	standard := amount{int64(p.settings.Quota), p.settings.QuotaMessages}
	if p.gateway == nil {
		return standard
	}
	to, now := to.Fold(), p.now()
	p.limits.mu.Lock()
	k, ok := p.limits.m[to]
	p.limits.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.limit
	}
	ctx, cancel := context.WithTimeout(ctx, limitTime)
	defer cancel()
	account, err := p.gateway.Lookup(ctx, to)
	switch {
	case err != nil && ok:
		slog.Warn("no answer about a quota, the one before holds", "to", to.String(), "error", err.Error())
	case err != nil:
		slog.Warn("no answer about a quota, the standard one holds", "to", to.String(), "error", err.Error())
		return standard
	default:
		k.limit = standard
		if i := account.Info; i != nil && (i.QuotaBytes > 0 || i.QuotaMessages > 0) {
			k.limit = amount{i.QuotaBytes, i.QuotaMessages}
		}
	}
	k.until = now.Add(limitKeep)
	p.limits.mu.Lock()
	defer p.limits.mu.Unlock()
	if len(p.limits.m) >= maxBoxes {
		clear(p.limits.m)
	}
	p.limits.m[to] = k
	return k.limit
}
