package pluginhost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/core/confine"
)

// Options are what a host is built from.
type Options struct {
	// RunDir is for sockets and notes about processes; made with mode 0700 if need be. No
	// other host may use it at the same time.
	RunDir string
	// DraftDir is for the files in which plugins write new bodies; made with the first, and
	// emptied at the start. It has to be on a disk with room for them, and where a plugin with a user
	// of its own can enter. "": "drafts" in RunDir.
	DraftDir string
	// ContentDir is where the files of large messages are; for plugins whose files are
	// restricted. "": no such plugin reads any.
	ContentDir string
	// SelfExe is the gateway's binary, "/proc/self/exe": it runs a built-in plugin as
	// "plugin serve NAME" and the guard as "plugin guard" (see [Guard]).
	SelfExe string
	// Hostname, Postmaster and DataDir are handed to plugins, Version is the gateway's.
	Hostname, Postmaster, DataDir, Version string
	// DNSServers are handed to plugins: the resolvers to ask.
	DNSServers []string
	// ContentGroup returns the group that may read the files of large messages, and makes it
	// so; nil: none. Plugins with a user of their own are in it.
	ContentGroup func(confine.User) (int, error)
	Log          *slog.Logger
	Clock        func() time.Time // nil: time.Now
	// Services are what plugins may ask of the gateway.
	Services Services
	// Up is called when a plugin works that did not, or another process of it than before:
	// after a restart, and when it is enabled. It must not block, nor ask the host. It is not
	// called of what Start and Reload started: who calls those knows. nil: nobody is told.
	Up func(plugin string)
	// Idle is for a trial beside a gateway that runs: services are not activated, and
	// their listeners not opened.
	Idle bool

	timing *timing // for tests
}

// Spec is one plugin as configured.
type Spec struct {
	Name string // unique
	// Use names a built-in plugin. Command runs a program instead, by its absolute path.
	Use      string
	Command  []string
	Settings []byte        // TOML
	Timeout  time.Duration // of one call; 0: 30 s

	// SHA256 is the checksum that the program of Command must have, in hex; "": any.
	SHA256 string
	User   *confine.User // nil: the gateway's own
	// Memory is for the process and all it starts, in bytes; 0: no limit. What takes more is
	// killed.
	Memory int64
	// Processes is how many processes and threads there may be; 0: no limit.
	Processes int
	// Files are what it may open besides what every plugin needs; nil: whatever its user may.
	Files *confine.Files
	// Network says, of a built-in plugin, what its manifest says, which saves a start.
	Network bool

	program string // what the files of Command were like when it was launched
}

func (s Spec) limits() confine.Limits {
	return confine.Limits{Memory: s.Memory, Processes: s.Processes, OwnUser: s.User != nil}
}

func (s Spec) argv(self string) []string {
	if len(s.Command) > 0 {
		return s.Command
	}
	return []string{self, "plugin", "serve", s.Use}
}

func (s Spec) equal(t Spec) bool {
	return s.Name == t.Name && s.Use == t.Use && s.Timeout == t.Timeout &&
		slices.Equal(s.Command, t.Command) && string(s.Settings) == string(t.Settings) && s.program == t.program &&
		s.SHA256 == t.SHA256 && s.Memory == t.Memory && s.Processes == t.Processes && s.Network == t.Network && s.Files.Equal(t.Files) &&
		(s.User == nil) == (t.User == nil) && (s.User == nil || *s.User == *t.User)
}

// stamp tells a program, or the script that it runs, from a later one at the same place.
func stamp(command []string) string {
	var b strings.Builder
	for _, path := range command {
		if info, err := os.Stat(path); err == nil && filepath.IsAbs(path) && info.Mode().IsRegular() {
			fmt.Fprintf(&b, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

func (s Spec) check() error {
	switch {
	case s.Name == "":
		return errors.New("a plugin has no name")
	case (s.Use == "") == (len(s.Command) == 0):
		return fmt.Errorf("plugin %q: give either the name of a built-in plugin or a command", s.Name)
	case len(s.Command) > 0 && !filepath.IsAbs(s.Command[0]):
		return fmt.Errorf("plugin %q: the command %q is not an absolute path", s.Name, s.Command[0])
	case s.Timeout < 0:
		return fmt.Errorf("plugin %q: the timeout is negative", s.Name)
	case s.SHA256 != "" && len(s.Command) == 0:
		return fmt.Errorf("plugin %q: a checksum is for a command", s.Name)
	case s.Memory < 0 || s.Processes < 0:
		return fmt.Errorf("plugin %q: a limit is negative", s.Name)
	}
	return nil
}

// Host runs plugins. Build it with [Start].
type Host struct {
	opt          Options
	timing       timing
	dir          *runDir
	fork         *forker
	guard        *guardian
	mark         string // in the environment of every plugin of this host
	lifeR, lifeW *os.File
	generation   atomic.Int64
	drafts       string

	reload sync.Mutex // one Reload or Close at a time
	mu     sync.RWMutex
	slots  map[string]*slot
	order  []string
	retire sync.WaitGroup // supervisors that are being stopped
	trials gate           // see suspects.go
	online sync.Map       // programs whose manifest asks for the network, by [process.program]
	// noNetns is set when the kernel makes no network namespaces for us.
	noNetns atomic.Bool
	life    context.Context
	die     context.CancelFunc // ends what is still going on when the host is closed
	closed  bool

	sockets sockets // of services

	countMu  sync.Mutex
	counters counters
}

// A slot is a plugin's name. What runs behind it changes.
type slot struct {
	name string
	sup  atomic.Pointer[supervisor] // nil: not configured (any more)

	disabled atomic.Bool // by an admin; see steer.go
	suspects atomic.Int32
	court    chan struct{} // held by the one trial at a time
}

// Start starts and configures all plugins at once. If one of them cannot be, it returns
// errors that name every such plugin, and nothing is left running.
func Start(ctx context.Context, opt Options, specs []Spec) (*Host, error) {
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Up == nil {
		opt.Up = func(string) {}
	}
	if opt.SelfExe == "" {
		opt.SelfExe = "/proc/self/exe"
	}
	h := &Host{opt: opt, timing: defaultTiming(), mark: rand.Text(), slots: make(map[string]*slot)}
	if opt.timing != nil {
		h.timing = *opt.timing
	}
	h.trials.idle = make(chan struct{})
	h.life, h.die = context.WithCancel(context.Background())
	if err := h.open(); err != nil {
		return nil, err
	}
	if err := h.Reload(ctx, specs); err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

func (h *Host) open() error {
	var err error
	if h.dir, err = openRunDir(h.opt.RunDir); err != nil {
		return err
	}
	if err = h.openDrafts(); err != nil {
		h.dir.close()
		return err
	}
	if h.lifeR, h.lifeW, err = os.Pipe(); err != nil {
		h.dir.close()
		return fmt.Errorf("plugin host: %w", err)
	}
	h.fork = newForker()
	if h.guard, err = startGuardian(h.opt.SelfExe, h.mark, h.fork); err != nil {
		h.lifeR.Close()
		h.lifeW.Close()
		h.fork.close()
		h.dir.close()
		return err
	}
	return nil
}

func (h *Host) release() {
	h.sockets.close()
	h.die()
	h.guard.close()
	h.fork.close()
	h.lifeW.Close()
	h.lifeR.Close()
	os.RemoveAll(h.drafts)
	h.dir.close()
}

// Reload makes specs the plugins that run. Those that did not change, neither the spec nor
// the program, keep their process.
// The new ones are started beside the old, and when all are configured and healthy they
// take over at once; the old ones finish what they have and end in the background. After
// an error everything is as it was.
func (h *Host) Reload(ctx context.Context, specs []Spec) error {
	h.reload.Lock()
	defer h.reload.Unlock()
	if h.closed {
		return errClosed
	}
	var faults []error
	seen := make(map[string]bool)
	specs = slices.Clone(specs)
	for i, s := range specs {
		specs[i].program = stamp(s.Command)
		if err := s.check(); err != nil {
			faults = append(faults, err)
		}
		if seen[s.Name] {
			faults = append(faults, fmt.Errorf("plugin %q is configured twice", s.Name))
		}
		seen[s.Name] = true
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	fresh, err := h.launchAll(ctx, specs)
	if err != nil {
		return err
	}
	h.swap(specs, fresh)
	return nil
}

// launchAll launches what is new or changed. The result has nil for the others.
func (h *Host) launchAll(ctx context.Context, specs []Spec) ([]*process, error) {
	fresh := make([]*process, len(specs))
	faults := make([]error, len(specs))
	var wg sync.WaitGroup
	for i, s := range specs {
		if sup := h.supervisor(s.Name); sup != nil && sup.spec.equal(s) {
			continue
		}
		wg.Go(func() {
			fresh[i], faults[i] = h.launchHealthy(ctx, s)
		})
	}
	wg.Wait()
	err := errors.Join(faults...)
	if err != nil {
		for _, p := range fresh {
			if p != nil {
				wg.Go(func() {
					p.kill()
					h.sockets.tidy(p.spec.Name, nil, false)
				})
			}
		}
		wg.Wait()
		return nil, err
	}
	return fresh, nil
}

func (h *Host) swap(specs []Spec, fresh []*process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keep := make(map[string]bool)
	h.order = h.order[:0:0]
	for i, s := range specs {
		keep[s.Name] = true
		h.order = append(h.order, s.Name)
		if fresh[i] == nil {
			continue
		}
		sl := h.slots[s.Name]
		if sl == nil {
			sl = &slot{name: s.Name, court: make(chan struct{}, 1)}
			h.slots[s.Name] = sl
		}
		fresh[i].barred = sl.disabled.Load()
		now := h.supervise(fresh[i])
		h.retireLater(sl.sup.Swap(now))
		if sl.disabled.Load() { // its new settings are good; that was the question
			h.retireLater(now)
		}
	}
	for name, sl := range h.slots {
		if !keep[name] {
			h.retireLater(sl.sup.Swap(nil))
			delete(h.slots, name)
		}
	}
}

func (h *Host) retireLater(s *supervisor) {
	if s == nil {
		return
	}
	h.retire.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), h.timing.drain)
		defer cancel()
		s.stop(ctx)
		h.tidySockets(s.spec.Name)
	})
}

func (h *Host) supervisor(name string) *supervisor {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if sl := h.slots[name]; sl != nil {
		return sl.sup.Load()
	}
	return nil
}

// Close drains and ends all plugins. When ctx ends, they are killed. The host cannot be
// used again.
func (h *Host) Close(ctx context.Context) {
	h.reload.Lock()
	defer h.reload.Unlock()
	if h.closed {
		return
	}
	h.closed = true
	h.mu.Lock()
	slots := h.slots
	h.slots, h.order = make(map[string]*slot), nil
	h.mu.Unlock()
	var wg sync.WaitGroup
	for _, sl := range slots {
		if s := sl.sup.Swap(nil); s != nil {
			wg.Go(func() { s.stop(ctx) })
		}
	}
	wg.Wait()
	h.retire.Wait()
	h.trials.close()
	select {
	case <-h.trials.idle:
	case <-ctx.Done():
	}
	h.die()
	<-h.trials.idle
	h.release()
}
