package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// plugin does with a message what its X-Do field says: a word, and an argument to some.
type plugin struct {
	always string       // what it does with messages that have no X-Do field
	crowd  atomic.Int32 // calls that are there
	cfg    struct {
		// Dir is where it leaves a file pid.N for each process that it starts.
		Dir string `toml:"dir"`
		// Die is a file; when it exists, the plugin dies while it is configured.
		Die string `toml:"die"`
	}
}

func (p *plugin) Configure(_ context.Context, c sdk.Config) error {
	if err := c.Decode(&p.cfg); err != nil {
		return err
	}
	if _, err := os.Stat(p.cfg.Die); err == nil {
		os.Exit(9)
	}
	return nil
}

func (p *plugin) Deliver(ctx context.Context, d *sdk.Delivery) error {
	_, err := p.do(ctx, d.Message)
	return err
}

func (p *plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	return p.do(ctx, m)
}

func (p *plugin) do(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	what := m.Header.Get("X-Do")
	if what == "" {
		what = p.always
	}
	word, arg, _ := strings.Cut(what, " ")
	switch word {
	case "exit": // clean, and in the middle of the call
		os.Exit(0)
	case "crash": // not even the SDK can catch it
		go panic("in the background")
		select {}
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "panic":
		panic("the lock broke")
	case "slow": // so long, and then fine
		d, err := time.ParseDuration(arg)
		if err != nil {
			return nil, err
		}
		time.Sleep(d)
	case "hang": // until the deadline
		<-ctx.Done()
		return nil, ctx.Err()
	case "crowd": // hangs when another call is there
		defer p.crowd.Add(-1)
		if p.crowd.Add(1) > 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		time.Sleep(5 * time.Millisecond) // long enough for another
	case "deaf": // for ever
		select {}
	case "stop": // does not even answer health checks
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		time.Sleep(time.Second) // the signal takes a moment
	case "error":
		return nil, errors.New("no idea")
	case "nothing":
		return nil, nil
	case "undeclared":
		return sdk.Continue().AddHeader("X-Undeclared", "1"), nil
	case "ask": // the gateway, for what the manifest does not declare
		err := sdk.HostFrom(ctx).Count(ctx, "mail", 1)
		return sdk.Continue().Note("answer", fmt.Sprint(err)), nil
	case "rewrite": // the body, with line ends that would let mail be smuggled; only with "always"
		b, err := sdk.NewBody(ctx)
		if err != nil {
			return nil, err
		}
		_, err = io.WriteString(b, "a\n.\r\nMAIL FROM:<b@example.org>\r\n")
		return sdk.Continue().ReplaceBody(b), err
	case "giant": // 100 MB
		return sdk.Continue().Note("n", strings.Repeat("x", 100_000_000)), nil
	case "read": // a file, or a directory
		f, err := os.Open(arg)
		if err != nil {
			return nil, err
		}
		f.Close()
	case "write":
		return sdk.Continue(), os.WriteFile(arg, []byte("pwned"), 0o600)
	case "list":
		_, err := os.ReadDir(arg)
		return sdk.Continue(), err
	case "run":
		return sdk.Continue(), exec.Command(arg).Run()
	case "body": // of the message, to its end
		r, err := m.Body.Open()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		n, err := io.Copy(io.Discard, r)
		if err == nil && n != m.Body.Size {
			err = fmt.Errorf("%d bytes of %d", n, m.Body.Size)
		}
		return sdk.Continue(), err
	case "stdout":
		fmt.Println("stray print")
		syscall.Write(1, []byte("1|1|unix|/tmp/other|grpc\n"))
	case "stderr": // many megabytes, among them one line without an end
		flood(number(arg, 50) << 20)
	case "leak": // so many MiB, and keeps them
		leak(number(arg, 1024))
	case "forks": // so many children
		for range number(arg, 200) {
			if err := start(p.cfg.Dir, false, os.Environ(), "child"); err != nil {
				return nil, err
			}
		}
	case "orphan": // a grandchild in a session of its own; "bare": with an empty environment
		env := os.Environ()
		if arg == "bare" {
			env = []string{}
		}
		if err := start(p.cfg.Dir, true, env, "orphan", p.cfg.Dir); err != nil {
			return nil, err
		}
	}
	return sdk.Continue(), nil
}

func number(s string, def int) int {
	if n, err := strconv.Atoi(s); err == nil {
		return n
	}
	return def
}

var kept [][]byte

func leak(mib int) {
	for range mib {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1 // or the kernel would not count it
		}
		kept = append(kept, b)
	}
}

func flood(n int) {
	short := []byte(strings.Repeat("all work and no play\n", 1000))
	for done := 0; done < n/2; done += len(short) {
		os.Stderr.Write(short)
	}
	long := []byte(strings.Repeat("\x00\x1b[2Jx", 10000))
	for done := 0; done < n/2; done += len(long) {
		os.Stderr.Write(long)
	}
}

// start runs this program once more; it waits for it when it is the middle one of a double
// fork, so that only the grandchild is left.
func start(dir string, session bool, env []string, args ...string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	if err := cmd.Start(); err != nil {
		return err
	}
	if args[0] == "orphan" {
		return cmd.Wait()
	}
	if dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, "pid."+strconv.Itoa(cmd.Process.Pid)), nil, 0o644)
}
