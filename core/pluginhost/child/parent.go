package child

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/postern-mail/postern/core/confine"
)

// Options are what a parent is built from.
type Options struct {
	// RunDir is for sockets and notes about processes; made with mode 0700 if need be. No
	// other parent may use it at the same time.
	RunDir string
	// SelfExe is the gateway's binary: it runs the guard as "plugin guard" (see [Guard]).
	SelfExe string
	// Group returns the group that processes with a user of their own are in; 0: none but
	// their own. Nil: 0 for all.
	Group func(confine.User) (int, error)
	Log   *slog.Logger
}

// A Parent starts processes, and sees to it that none outlives it.
type Parent struct {
	group        func(confine.User) (int, error)
	log          *slog.Logger
	dir          *runDir
	fork         *forker
	guard        *guardian
	mark         string // in the environment of every process
	lifeR, lifeW *os.File
	generation   atomic.Int64
	// noNetns is set when the kernel makes no network namespaces for us.
	noNetns atomic.Bool
}

// Open takes over RunDir, after it has ended what a previous parent left there. Who calls it
// calls Close.
func Open(opt Options) (*Parent, error) {
	p := &Parent{group: opt.Group, log: opt.Log, mark: rand.Text()}
	var err error
	if p.dir, err = openRunDir(opt.RunDir); err != nil {
		return nil, err
	}
	if p.lifeR, p.lifeW, err = os.Pipe(); err != nil {
		p.dir.close()
		return nil, fmt.Errorf("plugin host: %w", err)
	}
	p.fork = newForker()
	if p.guard, err = startGuardian(opt.SelfExe, p.mark, p.fork); err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

// Close ends what still runs, and gives RunDir up.
func (p *Parent) Close() {
	p.guard.close()
	p.release()
}

func (p *Parent) release() {
	p.fork.close()
	p.lifeW.Close()
	p.lifeR.Close()
	p.dir.close()
}

// New makes a process that was not started yet. Nothing is to be freed before
// [Process.Prepare].
func (p *Parent) New(spec Spec) (*Process, error) {
	who, err := p.credential(spec.User)
	sockets := p.dir.sockets
	if err == nil && who != nil {
		sockets, err = p.dir.openSockets()
	}
	if err != nil {
		return nil, err
	}
	return &Process{
		spec:       spec,
		parent:     p,
		mark:       fmt.Sprintf("%s.%d.", p.mark, p.generation.Add(1)),
		who:        who,
		socketRoot: sockets,
		Out:        spec.Log.Stream("stdout"),
		Err:        spec.Log.Stream("stderr"),
	}, nil
}

// credential is what the kernel is asked for: no group but its own and that of [Options.Group].
// Nil: the host's own user.
func (p *Parent) credential(u *confine.User) (*syscall.Credential, error) {
	if u == nil {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("its user cannot be changed: the gateway does not run as root; start it as root, or remove the user key")
	}
	c := &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	if p.group == nil {
		return c, nil
	}
	g, err := p.group(*u)
	if err != nil {
		return nil, err
	}
	if g > 0 && g != u.GID {
		c.Groups = []uint32{uint32(g)}
	}
	return c, nil
}
