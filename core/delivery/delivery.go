// Package delivery owns the loop: claim what is due, run what is left of its pipeline, hand
// it to a transport, and commit what came of it for every recipient.
//
// It claims no more than it has room for, per destination and in all. The intent to attempt
// is durable before an attempt (the store sees to that), its result before the lease ends.
// No answer from a transport means defer. Nobody imports this package but cmd.
package delivery

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-mail/postern/core/expand"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// SMTP is the transport to other hosts. It returns one result for each of the job's recipients.
type SMTP interface {
	Attempt(ctx context.Context, job *smtpclient.Job) []smtpclient.Result
}

// Mailbox is the transport to a mailbox plugin. Nobody has tried a fresh delivery before. The
// error is why the status is no success.
type Mailbox interface {
	Deliver(ctx context.Context, plugin string, e *queue.Entry, recipient int, keep queue.Keep, fresh bool) (mail.Status, error)
}

// Options of a Delivery.
type Options struct {
	Store   queue.Store
	Intake  *intake.Intake
	SMTP    SMTP
	Mailbox Mailbox
	Expand  *expand.Expander
	Trace   trace.Recorder
	Log     *slog.Logger
	Clock   func() time.Time
	// Convictions are those so far, shared with the pipeline; nil: none.
	Convictions *pipeline.Convictions
	Owner       string        // names this process in leases
	Lease       time.Duration // how long the store's leases last
}

// Rules are what a reload may change.
type Rules struct {
	Route   func(mail.Path) (route.Route, error) // an error is a mail.Status
	Planner func(mail.Path) string               // the planner of a local recipient, "" for none; nil: none at all
	// Subaddress is the address of a folder of a recipient at a server behind us; false: it has
	// none, and mail for it goes to the recipient himself.
	Subaddress func(to mail.Path, folder string) (mail.Path, bool)
	// Total is how many attempts there are at once, PerNextHop how many to one destination. Mail
	// may have all of that. Each other class may have a quarter of Total, and at a next hop a quarter
	// of PerNextHop besides what mail has there; one at least.
	Total, PerNextHop int
	Lifetime          func(queue.Class) time.Duration // how long a message is tried
	DelayWarning      time.Duration                   // age at which the sender is told; 0: never
}

// shareOf is what a class has of a limit. What an archive that hangs, or a flood of reports, can take
// from mail is bounded by that.
func shareOf(class queue.Class, limit int) int {
	if class == queue.Mail {
		return limit
	}
	return max(limit/4, 1)
}

func (r *Rules) planner(to mail.Path) string {
	if r.Planner == nil {
		return ""
	}
	return r.Planner(to)
}

// Delivery runs attempts until it is stopped.
type Delivery struct {
	Options
	mu    sync.Mutex
	rules Rules

	destinations destinations
	warned       *state.Rate[mail.Path] // senders, of delays
	slots        slots                  // attempts under way
	freed        chan struct{}          // an attempt ended, or rules changed
	unpark       chan struct{}          // parked mail is due
	quit         chan struct{}          // closed when attempts have to end
	work         sync.WaitGroup
}

// slots counts attempts by class.
type slots [queue.Classes]int

func (s *slots) total() (n int) {
	for _, k := range s {
		n += k
	}
	return n
}

// New returns a Delivery that follows r.
func New(o Options, r Rules) *Delivery {
	if o.Convictions == nil {
		o.Convictions = &pipeline.Convictions{}
	}
	return &Delivery{Options: o, rules: r, freed: make(chan struct{}, 1), unpark: make(chan struct{}, 1), quit: make(chan struct{}),
		destinations: destinations{m: make(map[lane]*destination)}, warned: state.NewRate[mail.Path](warnedSenders)}
}

// Reload makes r the rules of attempts that begin from now on.
func (d *Delivery) Reload(r Rules) {
	d.mu.Lock()
	d.rules = r
	d.mu.Unlock()
	d.wake()
}

func (d *Delivery) current() Rules {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rules
}

func (d *Delivery) wake() {
	select {
	case d.freed <- struct{}{}:
	default:
	}
}

// Run claims and attempts until ctx ends. It then claims no more, gives attempts under way
// until stop ends, and returns when the last has committed its result.
func (d *Delivery) Run(ctx, stop context.Context) {
	attempts, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(stop, func() { cancel(); close(d.quit) })()
	watch := time.NewTicker(time.Minute)
	defer watch.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var again <-chan time.Time
	d.watch(attempts) // what was parked before this start
	for {
		next := d.claim(attempts)
		timer.Reset(next)
		select {
		case <-ctx.Done():
			d.work.Wait()
			return
		case <-d.Store.Changed():
		case <-d.freed:
		case <-timer.C:
		case <-d.unpark:
			d.watch(attempts)
			again = time.After(parkAgain)
		case <-again:
			d.watch(attempts)
		case <-watch.C:
			d.watch(attempts)
		}
	}
}

// claim takes what is due and there is room for, begins the attempts, and returns how long
// to wait for the next claim if nothing happens before.
func (d *Delivery) claim(ctx context.Context) time.Duration {
	const idle = time.Minute
	rules := d.current()
	now := d.Clock()
	d.mu.Lock()
	taken := d.slots
	d.mu.Unlock()
	room := rules.Total - taken.total()
	if room <= 0 || ctx.Err() != nil {
		return idle
	}
	leases, next, err := d.Store.Claim(ctx, queue.Claim{Now: now, Max: room, Owner: d.Owner,
		Share: func(c queue.Class) int { return shareOf(c, rules.Total) - taken[c] },
		Room: func(c queue.Class, key string) int {
			return d.destinations.room(lane{c, key}, shareOf(c, rules.PerNextHop), now)
		}})
	if err != nil {
		d.Log.Error("claim failed", "error", err)
		return 5 * time.Second
	}
	d.mu.Lock()
	for _, l := range leases {
		d.slots[l.Entry.Class]++
	}
	d.mu.Unlock()
	for _, l := range leases {
		d.destinations.begin(laneOf(&l))
		d.work.Add(1)
		go d.attempt(ctx, rules, l)
	}
	if len(leases) == room {
		return idle // a slot that gets free wakes us
	}
	wait := idle
	if !next.IsZero() {
		wait = next.Sub(now)
	}
	if reopen := d.destinations.reopens(now); reopen > 0 {
		wait = min(wait, reopen)
	}
	return min(max(wait, time.Millisecond), idle)
}

// Reopen lets next hops be tried at once that are left alone because they could not be reached.
func (d *Delivery) Reopen(destinations []string) {
	d.destinations.reopen(destinations)
	d.wake()
}

// release ends an attempt.
func (d *Delivery) release(class queue.Class) {
	d.mu.Lock()
	d.slots[class]--
	d.mu.Unlock()
	d.wake()
	d.work.Done()
}

// InFlight is the number of attempts under way.
func (d *Delivery) InFlight() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.slots.total()
}
