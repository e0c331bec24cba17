package child

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

// execute runs the program, confined as its [Spec] says. After an error nothing is left.
func (p *Process) execute(stdout, stderr *os.File) error {
	var program *os.File
	var err error
	if p.spec.SHA256 != "" {
		if program, err = confine.OpenProgram(p.spec.Argv[0], p.spec.SHA256); err != nil {
			return err
		}
		defer program.Close()
	}
	if p.cage, err = confine.NewCage(p.spec.Limits, strings.TrimSuffix(p.mark, ".")); err != nil {
		return err
	}
	// Some containers forbid network namespaces, and some that a child is held before its
	// first instruction: then it goes on without.
	held := !p.cage.Empty()
	alone := !p.spec.Network && os.Geteuid() == 0
	err = p.spawn(stdout, stderr, program, alone && !p.parent.noNetns.Load(), held)
	if forbidden(err) && alone {
		if err = p.spawn(stdout, stderr, program, false, held); err == nil && !p.parent.noNetns.Swap(true) {
			p.parent.log.Warn("the kernel makes no network namespaces for us: plugins that do not ask for the network are kept from TCP at most", "tcp", !p.cutOff)
		}
	}
	if forbidden(err) && held {
		err = p.spawn(stdout, stderr, program, false, false)
	}
	if err != nil {
		p.cage.Remove()
		return err
	}
	if p.who != nil || held || p.spec.Files != nil {
		uid := os.Geteuid()
		if p.who != nil {
			uid = int(p.who.Uid)
		}
		p.parent.log.Info("plugin confined", "plugin", p.spec.Name, "pid", p.pid, "uid", uid, "memory_by", p.cage.MemoryBy,
			"processes_by", p.cage.ProcessesBy, "files_by", p.filesBy, "network", !p.cutOff)
	}
	return nil
}

func forbidden(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EUSERS)
}

// command is how the process is started. With alone it has a network to itself, with held it
// stands before its first instruction.
func (p *Process) command(stdout, stderr, program *os.File, alone, held bool) *exec.Cmd {
	cmd := &exec.Cmd{
		Path:       p.spec.Argv[0],
		Args:       p.spec.Argv,
		Env:        p.env,
		Dir:        "/",
		Stdout:     stdout,
		Stderr:     stderr,
		ExtraFiles: []*os.File{p.parent.lifeR},
		SysProcAttr: &syscall.SysProcAttr{
			Setpgid:    true, // so that killing it takes along what it started
			Pdeathsig:  syscall.SIGKILL,
			Credential: p.who,
			Ptrace:     held,
		},
	}
	for _, l := range p.spec.Listeners {
		cmd.ExtraFiles = append(cmd.ExtraFiles, l.File)
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
func (p *Process) spawn(stdout, stderr, program *os.File, alone, held bool) error {
	rules, err := p.rules(program, !p.spec.Network && !alone)
	if err != nil {
		return err
	}
	defer rules.Close()
	p.cutOff = alone || rules != nil && rules.Offline
	p.cmd = p.command(stdout, stderr, program, alone, held)
	fork := p.parent.fork
	if rules != nil {
		// Rules are put on a thread, and what it starts has them too. It is good for nothing
		// else afterwards, and stays as long as the process.
		fork = newForker()
		if fork.do(func() { err = rules.Restrict() }); err != nil {
			fork.close()
			return err
		}
	}
	if fork.do(func() { err = p.cmd.Start() }); err == nil {
		err = p.settle(fork, held)
	}
	switch {
	case rules == nil:
	case err != nil:
		fork.close()
	default:
		p.own = fork
	}
	return err
}

// settle notes a process that was just started and puts it into its cage. After an error it
// is dead.
func (p *Process) settle(fork *forker, held bool) error {
	pid := p.cmd.Process.Pid
	if s, err := confine.Find(pid); err == nil {
		p.start = s.Start
	}
	p.parent.dir.record(pid, p.start, p.mark)
	p.parent.guard.add(pid, p.start)
	if len(p.cage.Groups) > 0 {
		p.parent.dir.recordGroups(pid, p.cage.Groups)
		p.parent.guard.addCage(p.cage.Groups)
	}
	if err := p.lock(fork, pid, held); err != nil {
		syscall.Kill(pid, syscall.SIGKILL)
		p.cmd.Wait()
		p.parent.dir.forget(pid)
		p.parent.guard.remove(pid)
		p.parent.guard.removeCage(p.cage.Groups)
		return err
	}
	p.mu.Lock()
	p.pid = pid
	p.mu.Unlock()
	return nil
}

// lock puts the process into its cage.
func (p *Process) lock(fork *forker, pid int, held bool) error {
	if !held {
		return p.cage.Add(pid)
	}
	err := p.cage.Hold(pid)
	if err == nil {
		fork.do(func() { err = confine.Release(pid) })
	}
	return err
}

// rules are about what the process may open and reach; nil: there are none.
func (p *Process) rules(program *os.File, offline bool) (*confine.Rules, error) {
	rules, err := confine.NewRules(p.spec.Files != nil, offline)
	if rules == nil || p.spec.Files == nil {
		return rules, err
	}
	err = errors.Join(rules.AllowSystem(), rules.AllowProgram(p.spec.Argv, program), rules.AllowSockets(p.socketDir), p.spec.AllowMail(rules), rules.Allow(*p.spec.Files))
	if err != nil {
		rules.Close()
		return nil, err
	}
	p.filesBy = "landlock v" + strconv.Itoa(rules.ABI)
	if gaps := rules.Gaps(); gaps != "" {
		p.parent.log.Warn("plugin's files are not wholly restricted", "plugin", p.spec.Name, "gap", gaps)
	}
	return rules, nil
}
