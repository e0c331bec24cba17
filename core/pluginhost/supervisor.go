package pluginhost

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// timing is what the supervision goes by.
type timing struct {
	start    time.Duration // for start, handshake and configuration of a process
	health   time.Duration // between two health checks, and how long one may take
	drain    time.Duration // for the calls in flight when a process is replaced
	young    time.Duration // who dies younger, without having answered, waits for last at once
	stable   time.Duration // who lives longer starts with a clean slate
	first    time.Duration // the second restart in a row waits so long, the third twice that
	last     time.Duration // and so on, up to this
	breaker  int           // so many deaths in a row open the breaker
	callTime time.Duration // deadline of a call where the spec has none
	unary    bool          // plugins are asked by calls even where they serve a stream
}

func defaultTiming() timing {
	return timing{
		start:    10 * time.Second,
		health:   5 * time.Second,
		drain:    30 * time.Second,
		young:    5 * time.Second,
		stable:   time.Minute,
		first:    time.Second,
		last:     30 * time.Second,
		breaker:  5,
		callTime: 30 * time.Second,
	}
}

// Waits that have nothing to do with any plugin's behaviour.
const (
	maxGarbage  = 5 // answers in a row that break the protocol, or to no call: the process is replaced
	outputGrace = 500 * time.Millisecond
	killGrace   = 5 * time.Second
	deathNotice = 2 * time.Second // in which the end of a process is noticed, on a busy machine too
	soonest     = 2 * time.Second // a restart within this is worth to be waited for
)

// A supervisor keeps one plugin with one specification running.
type supervisor struct {
	host *Host
	spec Spec
	log  *slog.Logger

	cur    atomic.Pointer[process] // nil while the plugin is down
	check  chan struct{}           // asks for a health check now
	cancel context.CancelFunc
	done   chan struct{}

	active bool // a service that works; for loop, and for stop after it

	calls, failed atomic.Int64
	complain      *rate.Limiter // of failures into the log; all of them are counted

	proven  atomic.Bool // it has answered something
	inRow   atomic.Bool // somebody is in row
	pardons chan struct{}

	ending sync.Mutex // one stop at a time

	mu       sync.Mutex
	phase    phase
	turn     chan struct{} // closed when the phase changes
	last     *process      // the current one or, while down, the one before
	restarts int
	reason   string       // why it is down
	open     bool         // the breaker
	row      []netip.Addr // clients whose messages were convicted since it answered last; see suspects.go
}

// supervise takes over a process that has just been launched.
func (h *Host) supervise(p *process) *supervisor {
	ctx, cancel := context.WithCancel(context.Background())
	s := &supervisor{
		host:    h,
		spec:    p.spec,
		log:     h.opt.Log.With("plugin", p.spec.Name),
		check:   make(chan struct{}, 1),
		pardons: make(chan struct{}, 16),
		turn:    make(chan struct{}),
		cancel:  cancel,
		done:    make(chan struct{}),
		last:    p,
		// One a second, in the long run.
		complain: rate.NewLimiter(1, 20),
	}
	p.owner.Store(s)
	s.cur.Store(p)
	s.log.Info("plugin started", "pid", p.child.Pid(), "version", p.desc.Manifest.Version)
	go s.loop(ctx, p)
	return s
}

func (s *supervisor) loop(ctx context.Context, p *process) {
	defer close(s.done)
	back := backoff{timing: s.host.timing}
	for {
		s.begin(ctx, p)
		s.watch(ctx, p, &back)
		if ctx.Err() != nil {
			if s.cur.Load() == nil { // dismissed
				p.kill()
			}
			return // what becomes of the process is stop's business
		}
		delay := s.count(p, &back)
		s.log.Error("plugin died", "pid", p.child.Pid(), "how", p.child.End(), "calls", p.answered.Load(), "next", delay)
		s.down(p.child.How(), &back, delay)
		s.cur.Store(nil)
		p.kill() // it is dead; this frees the rest
		s.rest()
		if p = s.restart(ctx, delay, &back); p == nil {
			return
		}
	}
}

// watch returns when the process is dead or the supervisor is stopped. It kills a process
// that does not answer, or answers garbage only.
func (s *supervisor) watch(ctx context.Context, p *process, back *backoff) {
	tick := time.NewTicker(s.host.timing.health)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.child.Exited():
			return
		case <-s.pardons:
			s.forgive(back)
			continue
		case <-tick.C:
		case <-s.check:
		}
		if p.broken.Load() {
			s.replaceBroken(ctx, p)
			return
		}
		if n := max(p.garbage.Load(), p.strays.Load()); n >= maxGarbage {
			s.log.Error("plugin answers garbage and is restarted", "pid", p.child.Pid(), "answers", n)
			s.dismiss(ctx, p)
			<-p.child.Exited()
			return
		}
		if s.alive(ctx, p) {
			continue
		}
		<-p.child.Exited()
		return
	}
}

// alive asks a process for a sign of life, and kills one that hangs. No answer at once is that
// of a process that has just died: that was not us.
func (s *supervisor) alive(ctx context.Context, p *process) bool {
	wait, begin := s.host.timing.health, time.Now()
	if p.healthy(ctx, wait) || ctx.Err() != nil {
		return true
	}
	patience := deathNotice
	if time.Since(begin) >= wait {
		patience = 0
	}
	select {
	case <-p.child.Dead():
	case <-time.After(patience):
		s.log.Error("plugin hangs and is killed", "pid", p.child.Pid())
		p.child.Kill(ctx)
	}
	return false
}

// replaceBroken ends a process whose stream of calls has ended, unless its own end is why.
func (s *supervisor) replaceBroken(ctx context.Context, p *process) {
	select {
	case <-ctx.Done():
		return
	case <-p.child.Dead():
	case <-time.After(deathNotice):
		s.log.Error("plugin ended the stream of its calls and is restarted", "pid", p.child.Pid())
		s.dismiss(ctx, p)
	}
	<-p.child.Exited()
}

// restart launches until there is a process again.
func (s *supervisor) restart(ctx context.Context, delay time.Duration, back *backoff) *process {
	for {
		if !s.pause(ctx, delay, back) {
			return nil
		}
		p, err := s.host.launch(ctx, s.spec)
		if ctx.Err() != nil {
			if p != nil {
				p.kill()
			}
			return nil
		}
		if err == nil {
			s.mu.Lock()
			s.last, s.reason = p, ""
			s.restarts++
			n := s.restarts
			p.owner.Store(s)
			s.cur.Store(p)
			s.turnTo(running)
			s.mu.Unlock()
			s.log.Info("plugin restarted", "pid", p.child.Pid(), "restarts", n)
			s.host.opt.Up(s.spec.Name)
			return p
		}
		delay = back.failed()
		s.log.Error("plugin cannot be restarted", "error", err, "next", delay)
		s.down(err.Error(), back, delay)
	}
}

// pause waits before a restart, less long after a pardon. It reports whether to go on.
func (s *supervisor) pause(ctx context.Context, delay time.Duration, back *backoff) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-s.pardons:
			s.forgive(back)
			timer.Reset(0)
		case <-timer.C:
			return true
		}
	}
}

// forgive takes a death back that was a message's fault.
func (s *supervisor) forgive(back *backoff) {
	back.pardon()
	s.mu.Lock()
	s.open = back.open
	s.mu.Unlock()
}

// dismiss ends a process that still lives: it gets no further calls and a moment for those
// it has.
func (s *supervisor) dismiss(ctx context.Context, p *process) {
	s.mu.Lock()
	s.cur.Store(nil)
	s.turnTo(soon)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.host.timing.health)
	defer cancel()
	p.drain(ctx)
	p.child.Kill(ctx)
}

// down notes why there is no process, and says so when the breaker opens.
func (s *supervisor) down(reason string, back *backoff, delay time.Duration) {
	s.mu.Lock()
	opened := back.open && !s.open
	s.open, s.reason = back.open, reason
	if delay <= soonest {
		s.turnTo(soon)
	} else {
		s.turnTo(down)
	}
	s.mu.Unlock()
	if opened {
		s.log.Error("plugin breaker opened: it dies again and again", "deaths", back.deaths)
	}
}

// stop ends the supervision, drains the process and kills it. It is bounded by ctx and by
// the grace of a kill.
func (s *supervisor) stop(ctx context.Context) {
	s.ending.Lock()
	defer s.ending.Unlock()
	s.cancel()
	<-s.done
	defer s.rest()
	s.mu.Lock()
	s.turnTo(stopped)
	s.mu.Unlock()
	p := s.cur.Load()
	if p == nil {
		return
	}
	p.drain(ctx)
	s.cur.Store(nil)
	p.kill()
	s.log.Info("plugin stopped", "pid", p.child.Pid())
}
