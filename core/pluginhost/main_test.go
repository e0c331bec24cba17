package pluginhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/core/pluginhost/child"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// The test binary is the gateway's binary as well: it serves plugins, is the guard, and
// plays a host that is killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "plugin" {
		switch {
		case os.Args[2] == "guard":
			if err := child.Guard(os.Stdin, os.Stdout); err != nil {
				os.Exit(1)
			}
			os.Exit(0)
		case os.Args[2] == "serve":
			servePlugin(os.Args[3])
		case os.Args[2] == "child":
			signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
			time.Sleep(time.Hour)
		case os.Args[2] == "humble":
			humbleHost(os.Args[3], os.Args[4:])
			os.Exit(0)
		case os.Args[2] == "host":
			hostThatDies(os.Args[3], os.Args[4])
		}
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func servePlugin(name string) {
	m := sdk.Manifest{Name: name, Version: "1.0", Needs: sdk.NeedBody, May: sdk.MayReject}
	switch name {
	case "noisy":
		fmt.Println("hello from the noisy plugin")
		fmt.Print("1 and more\n")
		m.Name = "filter"
		sdk.Serve(&filter{}, sdk.Manifest{Name: "noisy", Version: "1.0", Needs: sdk.NeedBody, May: sdk.MayReject})
	case "exit0":
		os.Exit(0)
	case "exit7":
		fmt.Fprintln(os.Stderr, "the licence has expired")
		os.Exit(7)
	case "mute":
		time.Sleep(time.Hour)
	case "chatter":
		for range 100000 {
			fmt.Println(strings.Repeat("x", 1000))
		}
		time.Sleep(time.Hour)
	case "version":
		fmt.Println("1|99|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/s|grpc")
		time.Sleep(time.Hour)
	case "tcp":
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		fmt.Printf("1|1|tcp|%s|grpc\n", l.Addr())
		time.Sleep(time.Hour)
	case "elsewhere":
		fmt.Println("1|1|unix|/run/docker.sock|grpc")
		time.Sleep(time.Hour)
	case "raw":
		serveRaw()
	case "rawstream":
		serveRawStream()
	case "writer":
		serveWriter()
	case "rawgate":
		serveRawGate()
	case "online":
		m.Network = true
		sdk.Serve(&filter{}, m)
	case "owner":
		m.May, m.Owns = sdk.MayEditHeader, []string{"X-Own"}
		sdk.Serve(&owner{}, m)
	case "box":
		sdk.Serve(&box{}, m)
	case "header":
		m.Needs = sdk.NeedHeader
		sdk.Serve(&filter{}, m)
	default:
		sdk.Serve(&filter{}, m)
	}
}

// filter does what the Subject tells it.
type filter struct {
	cfg struct {
		Greeting string `toml:"greeting"`
		Fail     string `toml:"fail"`
		// DieOnStart ends the process soon after it was configured, if the file exists.
		DieIf string `toml:"die_if"`
	}
}

func (f *filter) Configure(_ context.Context, c sdk.Config) error {
	f.cfg.Greeting = "hello"
	if err := c.Decode(&f.cfg); err != nil {
		return err
	}
	if f.cfg.Fail != "" {
		return errors.New(f.cfg.Fail)
	}
	if f.cfg.DieIf != "" {
		if _, err := os.Stat(f.cfg.DieIf); err == nil {
			go func() { os.Exit(9) }()
		}
	}
	return nil
}

func (f *filter) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	word, arg, _ := strings.Cut(m.Header.Get("Subject"), " ")
	switch word {
	case "exit":
		os.Exit(3)
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "panic":
		panic("the " + arg + " broke")
	case "crash":
		go panic("in the background")
		select {}
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	case "note-end":
		os.WriteFile(arg+".begun", nil, 0o600)
		<-ctx.Done()
		os.WriteFile(arg, nil, 0o600)
	case "unsendable":
		return sdk.Continue().AddCopy(mail.Path{Local: "\xff"}, mail.Path{}), nil
	case "giant":
		return sdk.Continue().Note("n", strings.Repeat("x", 2<<20)), nil
	case "deaf":
		select {}
	case "stop":
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "until": // there is that file
		for ctx.Err() == nil {
			if _, err := os.Stat(arg); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
	case "sleep":
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
	case "error":
		return nil, errors.New(arg)
	case "nothing":
		return nil, nil
	case "reject":
		return sdk.Reject(mail.Permanent(550, 7, 1, arg)), nil
	case "edit":
		return sdk.Continue().AddHeader("X-Undeclared", "1"), nil
	case "env":
		return sdk.Continue().Note("env", strings.Join(os.Environ(), " ")), nil
	case "child":
		return spawnChild(arg == "escape")
	case "eat":
		n, _ := strconv.Atoi(arg)
		eat(n << 20)
	case "forks":
		n, _ := strconv.Atoi(arg)
		return forkAndHide(n), nil
	case "dial":
		c, err := net.DialTimeout("tcp", arg, 2*time.Second)
		if err != nil {
			return nil, err
		}
		c.Close()
	case "read":
		_, err := os.ReadFile(arg)
		if err != nil {
			return nil, err
		}
	case "try":
		return sdk.Continue(), tryTo(arg)
	case "who":
		groups, _ := os.Getgroups()
		return sdk.Continue().Note("who", fmt.Sprint(os.Getuid(), os.Getgid(), groups)), nil
	case "stderr":
		n, _ := strconv.Atoi(arg)
		flood(os.Stderr, n)
	case "stdout":
		fmt.Println("stray print")
		syscall.Write(1, []byte("raw stray\n"))
	case "log":
		slog.Warn("something odd", "what", arg)
	case "body":
		r, err := m.Body.Open()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		var b bytes.Buffer
		b.ReadFrom(r)
		return sdk.Continue().Note("body", b.String()), nil
	}
	return sdk.Continue().Note("pid", strconv.Itoa(os.Getpid())).Note("greeting", f.cfg.Greeting), nil
}

// eat takes memory, all of it.
func eat(n int) {
	b := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
}

// forkAndHide starts children that neither group nor mark would find.
func forkAndHide(n int) *sdk.Verdict {
	started := 0
	for range n {
		cmd := exec.Command("/proc/self/exe", "plugin", "child")
		cmd.Env = []string{"PATH=/"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if cmd.Start() == nil {
			started++
		}
	}
	return sdk.Continue().Note("started", strconv.Itoa(started))
}

// spawnChild starts a child that can be found by its process group only or, if it escapes,
// by its mark only.
func spawnChild(escape bool) (*sdk.Verdict, error) {
	cmd := exec.Command("/proc/self/exe", "plugin", "child")
	if !escape {
		cmd.Env = []string{"PATH=/"}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: escape}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return sdk.Continue().Note("child", strconv.Itoa(cmd.Process.Pid)), nil
}

// flood writes n bytes: short lines, one huge line, and binary.
func flood(w *os.File, n int) {
	short := bytes.Repeat([]byte("all work and no play\n"), 1000)
	for done := 0; done < n/3; done += len(short) {
		w.Write(short)
	}
	long := bytes.Repeat([]byte("x"), 32<<10)
	for done := 0; done < n/3; done += len(long) {
		w.Write(long)
	}
	w.Write([]byte("\n"))
	for i := range long {
		long[i] = byte(i * 7)
	}
	for done := 0; done < n/3; done += len(long) {
		w.Write(long)
	}
}

// box remembers what was delivered.
type box struct {
	mu   sync.Mutex
	keys map[string]bool
}

func (b *box) Deliver(ctx context.Context, d *sdk.Delivery) error {
	if strings.HasPrefix(d.Folder, "slow") && d.Fresh { // it takes until the process ends
		<-ctx.Done()
		return ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch d.Folder {
	case "full":
		return fmt.Errorf("storing: %w", mail.Temporary(452, 2, 2, "mailbox full"))
	case "gone":
		return mail.Permanent(550, 1, 1, "no such mailbox")
	case "broken":
		return errors.New("disk on fire")
	case "exit":
		os.Exit(3)
	}
	if b.keys == nil {
		b.keys = make(map[string]bool)
	}
	b.keys[d.Key] = true
	return nil
}

// logBuffer collects the log of a host.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func fastTiming() timing {
	t := defaultTiming()
	t.health, t.first, t.last = time.Second, 20*time.Millisecond, 300*time.Millisecond
	return t
}

// unaryEnv has the tests ask plugins by method calls; see TestTheOtherWay.
const unaryEnv = "PLUGINHOST_TEST_UNARY"

func options(t testing.TB, log *logBuffer, tm timing) Options {
	t.Helper()
	tm.unary = tm.unary || os.Getenv(unaryEnv) != ""
	return Options{
		RunDir:     filepath.Join(t.TempDir(), "run"),
		SelfExe:    "/proc/self/exe",
		Hostname:   "mx.example.org",
		Postmaster: "postmaster@example.org",
		DataDir:    "/nonexistent",
		Log:        slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		timing:     &tm,
	}
}

func start(t testing.TB, tm timing, specs ...Spec) (*Host, *logBuffer) {
	t.Helper()
	log := &logBuffer{}
	h, err := Start(t.Context(), options(t, log, tm), specs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		h.Close(ctx)
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return h, log
}

// use is a plugin that has time to answer: a busy machine is no hanging plugin.
func use(name string) Spec { return Spec{Name: name, Use: name, Timeout: time.Minute} }

func filterOf(t testing.TB, h *Host, name string) *Filter {
	t.Helper()
	f, ok := h.Filter(name)
	if !ok {
		t.Fatalf("no filter %s", name)
	}
	return f
}

// msg is a message that tells the test plugin what to do.
func msg(subject string) *mail.Message {
	return &mail.Message{
		Envelope: mail.Envelope{
			ID:          "0c1f3k9w2m4xq",
			Origin:      mail.Incoming,
			ReversePath: mail.MustPath("a@example.com"),
			Recipients:  []mail.Recipient{{Path: mail.MustPath("b@example.org")}},
		},
		Header: mail.NewHeader([]byte("From: a@example.com\r\nSubject: " + subject + "\r\n\r\n")),
		Body:   mail.InlineBody([]byte("text\r\n")),
	}
}

func wantReason(t *testing.T, err error, reason string) *Failure {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) {
		t.Fatalf("error is %v (%T), not a Failure", err, err)
	}
	if f.Reason() != reason {
		t.Fatalf("reason is %q (%v), want %q", f.Reason(), err, reason)
	}
	return f
}

// eventually waits for what another process does.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func gone(pid int) bool {
	s, err := confine.Find(pid)
	return err != nil || !s.Alive()
}

func pidOf(t testing.TB, h *Host, name string) int {
	t.Helper()
	for _, s := range h.Status() {
		if s.Name == name {
			return s.Pid
		}
	}
	t.Fatalf("no plugin %s", name)
	return 0
}

// hostThatDies runs a host with two plugins until it is killed. It prints the pids of
// plugins and of what they started.
func hostThatDies(runDir, how string) {
	opt := Options{RunDir: runDir, SelfExe: "/proc/self/exe"}
	h, err := Start(context.Background(), opt, []Spec{use("filter"), use("box")})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("plugin", h.Status()[0].Pid)
	fmt.Println("plugin", h.Status()[1].Pid)
	f, _ := h.Filter("filter")
	for _, subject := range []string{"child", "child escape"} {
		v, err := f.Filter(context.Background(), msg(subject))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("child", v.Notes["child"])
	}
	fmt.Println("end")
	if how == "panic" {
		panic("the host breaks")
	}
	time.Sleep(time.Hour)
}
