package pluginhost

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/core/confine"
)

// credential is what the kernel is asked for: no group but its own and, to read messages,
// that of the content. Nil: the host's own user.
func (h *Host) credential(s Spec) (*syscall.Credential, error) {
	if s.User == nil {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("its user cannot be changed: the gateway does not run as root; start it as root, or remove the user key")
	}
	c := &syscall.Credential{Uid: uint32(s.User.UID), Gid: uint32(s.User.GID)}
	if h.opt.ContentGroup == nil {
		return c, nil
	}
	g, err := h.opt.ContentGroup(*s.User)
	if err != nil {
		return nil, err
	}
	if g > 0 && g != s.User.GID {
		c.Groups = []uint32{uint32(g)}
	}
	return c, nil
}

// execute runs the program, confined as its Spec says. After an error nothing is left.
func (r *runner) execute(stdout, stderr *os.File) error {
	var program *os.File
	var err error
	if r.spec.SHA256 != "" {
		if program, err = confine.OpenProgram(r.argv[0], r.spec.SHA256); err != nil {
			return err
		}
		defer program.Close()
	}
	if r.cage, err = confine.NewCage(r.spec.limits(), strings.TrimSuffix(r.mark, ".")); err != nil {
		return err
	}
	// Some containers forbid network namespaces, and some that a child is held before its
	// first instruction: then it goes on without.
	held := !r.cage.Empty()
	alone := !r.online && os.Geteuid() == 0
	err = r.spawn(stdout, stderr, program, alone && !r.host.noNetns.Load(), held)
	if forbidden(err) && alone {
		if err = r.spawn(stdout, stderr, program, false, held); err == nil && !r.host.noNetns.Swap(true) {
			r.host.opt.Log.Warn("the kernel makes no network namespaces for us: plugins that do not ask for the network are kept from TCP at most", "tcp", !r.cutOff)
		}
	}
	if forbidden(err) && held {
		err = r.spawn(stdout, stderr, program, false, false)
	}
	if err != nil {
		r.cage.Remove()
		return err
	}
	if r.who != nil || held || r.spec.Files != nil {
		uid := os.Geteuid()
		if r.who != nil {
			uid = int(r.who.Uid)
		}
		r.host.opt.Log.Info("plugin confined", "plugin", r.name, "pid", r.pid, "uid", uid, "memory_by", r.cage.MemoryBy,
			"processes_by", r.cage.ProcessesBy, "files_by", r.filesBy, "network", !r.cutOff)
	}
	return nil
}

func forbidden(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EUSERS)
}

// command is how the process is started. With alone it has a network to itself, with held it
// stands before its first instruction.
func (r *runner) command(stdout, stderr, program *os.File, alone, held bool) *exec.Cmd {
	cmd := &exec.Cmd{
		Path:       r.argv[0],
		Args:       r.argv,
		Env:        r.env,
		Dir:        "/",
		Stdout:     stdout,
		Stderr:     stderr,
		ExtraFiles: []*os.File{r.parent},
		SysProcAttr: &syscall.SysProcAttr{
			Setpgid:    true, // so that killing it takes along what it started
			Pdeathsig:  syscall.SIGKILL,
			Credential: r.who,
			Ptrace:     held,
		},
	}
	for _, l := range r.listeners {
		cmd.ExtraFiles = append(cmd.ExtraFiles, l.file)
	}
	if alone {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	}
	if program != nil { // the very file that was checked, whatever its name stands for now
		cmd.Path = "/proc/self/fd/" + strconv.Itoa(3+len(cmd.ExtraFiles))
		cmd.ExtraFiles = append(cmd.ExtraFiles, program)
	}
	return cmd
}

// spawn makes one attempt. With held the process gets into its cage before it begins.
func (r *runner) spawn(stdout, stderr, program *os.File, alone, held bool) error {
	rules, err := r.rules(program, !r.online && !alone)
	if err != nil {
		return err
	}
	defer rules.Close()
	r.cutOff = alone || rules != nil && rules.Offline
	r.cmd = r.command(stdout, stderr, program, alone, held)
	fork := r.fork
	if rules != nil {
		// Rules are put on a thread, and what it starts has them too. It is good for nothing
		// else afterwards, and stays as long as the process.
		fork = newForker()
		if fork.do(func() { err = rules.Restrict() }); err != nil {
			fork.close()
			return err
		}
	}
	if fork.do(func() { err = r.cmd.Start() }); err == nil {
		err = r.settle(fork, held)
	}
	switch {
	case rules == nil:
	case err != nil:
		fork.close()
	default:
		r.own = fork
	}
	return err
}

// settle notes a process that was just started and puts it into its cage. After an error it
// is dead.
func (r *runner) settle(fork *forker, held bool) error {
	pid := r.cmd.Process.Pid
	if s, err := confine.Find(pid); err == nil {
		r.start = s.Start
	}
	r.dir.record(pid, r.start, r.mark)
	r.guard.add(pid, r.start)
	if len(r.cage.Groups) > 0 {
		r.dir.recordGroups(pid, r.cage.Groups)
		r.guard.addCage(r.cage.Groups)
	}
	if err := r.lock(fork, pid, held); err != nil {
		syscall.Kill(pid, syscall.SIGKILL)
		r.cmd.Wait()
		r.dir.forget(pid)
		r.guard.remove(pid)
		r.guard.removeCage(r.cage.Groups)
		return err
	}
	r.mu.Lock()
	r.pid = pid
	r.mu.Unlock()
	return nil
}

// lock puts the process into its cage.
func (r *runner) lock(fork *forker, pid int, held bool) error {
	if !held {
		return r.cage.Add(pid)
	}
	err := r.cage.Hold(pid)
	if err == nil {
		fork.do(func() { err = confine.Release(pid) })
	}
	return err
}
