package main_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The relay benchmark: the same messages through Postern and, when it is installed, through
// Postfix, in one run, to the same sink. Figures of one machine mean little; ratios of one
// run do.
//
//	go test -run '^$' -bench Relay -benchtime 1x ./cmd/postern -relay.messages 5000

var (
	benchMessages = flag.Int("relay.messages", 2000, "messages of the relay benchmark")
	benchSize     = flag.Int("relay.size", 4096, "bytes of a message")
	benchSessions = flag.Int("relay.sessions", 20, "sessions that send at the same time")
)

// figures are what a gateway did with the messages.
type figures struct {
	name      string
	seconds   float64 // from the first connection to the last delivery
	cpu       float64 // seconds of CPU, of all its processes
	peak      uint64  // bytes: the highest sum of its processes' proportional set sizes seen
	perSecond float64
}

func BenchmarkRelay(b *testing.B) {
	for range b.N {
		postern := relay(b, "postern", startPosternForBench)
		b.ReportMetric(postern.perSecond, "msg/s")
		b.ReportMetric(postern.cpu/float64(*benchMessages)*1000, "cpu-s/1000")
		report(b, postern)
		if _, err := os.Stat("/usr/sbin/postfix"); err != nil || os.Getuid() != 0 {
			b.Log("Postfix is not installed, or this is not root: no comparison")
			continue
		}
		postfix := relay(b, "postfix", startPostfixForBench)
		report(b, postfix)
		b.ReportMetric(postfix.cpu/postern.cpu, "cpu-ratio")
		b.ReportMetric(postern.perSecond/postfix.perSecond, "speed-ratio")
		b.Logf("Postern against Postfix: %.1f times the messages a second, 1/%.1f of the CPU per message", postern.perSecond/postfix.perSecond, postfix.cpu/postern.cpu)
	}
}

func report(b *testing.B, f figures) {
	b.Logf("%-8s %7.0f msg/s  %6.3f CPU-s/1000 messages  peak %5.1f MiB", f.name, f.perSecond, f.cpu/float64(*benchMessages)*1000, float64(f.peak)/(1<<20))
}

// relay starts a gateway, sends the messages through it and waits until the sink has them all.
func relay(b *testing.B, name string, start startGateway) figures {
	b.Helper()
	r := newRelaying(b, name, start)
	defer r.stop()
	r.send(b, *benchMessages)
	return r.figures()
}

// startGateway starts a gateway in a control group, which sends all mail to the sink. It
// returns its address and how to stop it.
type startGateway func(b *testing.B, group, sink string) (string, func())

// relaying is a gateway that runs, and what it has done with the messages so far.
type relaying struct {
	name  string
	group *meter
	sink  *countingSink
	addr  string
	stop  func()

	messages     int
	seconds, cpu float64
	peak         uint64
}

func newRelaying(b *testing.B, name string, start startGateway) *relaying {
	b.Helper()
	r := &relaying{name: name, group: newMeter(b), sink: newCountingSink(b)}
	r.addr, r.stop = start(b, r.group.procs(), r.sink.addr)
	return r
}

// warmUp sends n messages that do not count.
func (r *relaying) warmUp(b *testing.B, n int) {
	b.Helper()
	r.send(b, n)
	r.messages, r.seconds, r.cpu, r.peak = 0, 0, 0, 0
}

// send sends n messages and waits until the sink has them.
func (r *relaying) send(b *testing.B, n int) {
	b.Helper()
	before := r.group.cpu()
	begin := time.Now()
	all := r.sink.expect(n)
	quit := make(chan struct{})
	var peak atomic.Uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			peak.Store(max(peak.Load(), r.group.memory()))
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	})
	load(b, r.addr, n)
	select {
	case <-all:
	case <-time.After(10 * time.Minute):
		b.Fatalf("%s: %d messages and more have not arrived", r.name, r.sink.missing.Load())
	}
	r.seconds += time.Since(begin).Seconds()
	r.cpu += r.group.cpu() - before
	close(quit)
	wg.Wait()
	r.messages += n
	r.peak = max(r.peak, peak.Load())
}

func (r *relaying) figures() figures {
	return figures{r.name, r.seconds, r.cpu, r.peak, float64(r.messages) / r.seconds}
}

// load sends so many messages over benchSessions sessions, as senders do: one
// connection for each ten messages, pipelined where that is allowed.
func load(b *testing.B, addr string, messages int) {
	text := "From: <sender@example.net>\r\nTo: <rcpt@example.com>\r\nSubject: benchmark\r\nMessage-ID: <%d@example.net>\r\n\r\n"
	body := strings.Repeat(strings.Repeat("x", 70)+"\r\n", max(*benchSize-120, 72)/72)
	var left atomic.Int64
	left.Store(int64(messages))
	var wg sync.WaitGroup
	for range *benchSessions {
		wg.Go(func() {
			for left.Load() > 0 {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					b.Error(err)
					return
				}
				r := bufio.NewReader(conn)
				fail := func(err error) bool {
					if err != nil {
						b.Error(err)
						conn.Close()
					}
					return err != nil
				}
				if fail(replies(r, 1)) {
					return
				}
				io.WriteString(conn, "EHLO load.example.net\r\n")
				if fail(replies(r, 1)) {
					return
				}
				for range 10 {
					n := left.Add(-1)
					if n < 0 {
						break
					}
					io.WriteString(conn, "MAIL FROM:<sender@example.net>\r\nRCPT TO:<rcpt@example.com>\r\nDATA\r\n")
					if fail(replies(r, 3)) {
						return
					}
					fmt.Fprintf(conn, text+"%s.\r\n", n, body)
					if fail(replies(r, 1)) {
						return
					}
				}
				io.WriteString(conn, "QUIT\r\n")
				replies(r, 1)
				conn.Close()
			}
		})
	}
	wg.Wait()
}

// replies reads n replies and wants them to be positive.
func replies(r *bufio.Reader, n int) error {
	for n > 0 {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 || line[0] != '2' && line[0] != '3' {
			return fmt.Errorf("reply %q", line)
		}
		if line[3] != '-' {
			n--
		}
	}
	return nil
}

// countingSink takes all mail and counts it.
type countingSink struct {
	addr    string
	missing atomic.Int64 // of what is expected
	all     atomic.Pointer[chan struct{}]
}

func newCountingSink(b *testing.B) *countingSink {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	s := &countingSink{addr: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

// expect returns what is closed when n messages have arrived from now on.
func (s *countingSink) expect(n int) <-chan struct{} {
	all := make(chan struct{})
	s.all.Store(&all)
	s.missing.Store(int64(n))
	return all
}

func (s *countingSink) serve(conn net.Conn) {
	defer conn.Close()
	r, w := bufio.NewReaderSize(conn, 16<<10), bufio.NewWriter(conn)
	w.WriteString("220 sink ESMTP\r\n")
	for {
		if r.Buffered() == 0 {
			w.Flush()
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		switch strings.ToUpper(string(line[:min(4, len(line))])) {
		case "EHLO":
			w.WriteString("250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
		case "DATA":
			w.WriteString("354 go\r\n")
			w.Flush()
			for {
				line, err := r.ReadSlice('\n')
				if err != nil && err != bufio.ErrBufferFull {
					return
				}
				if bytes.Equal(line, []byte(".\r\n")) {
					break
				}
			}
			w.WriteString("250 ok\r\n")
			w.Flush()
			if s.missing.Add(-1) == 0 {
				close(*s.all.Load())
			}
		case "QUIT":
			w.WriteString("221 bye\r\n")
			w.Flush()
			return
		default:
			w.WriteString("250 ok\r\n")
		}
	}
}

func startPosternForBench(b *testing.B, procs, sink string) (string, func()) {
	dir := b.TempDir()
	file := write(b, dir, fmt.Sprintf(`
hostname = "mx.example.org"
data_dir = "data"
[log]
format = "json"
[relay]
networks = ["127.0.0.0/8"]
[[listener]]
address = "127.0.0.1:0"
role = "mx"
tls = "none"
[smarthost]
address = %q
`, sink))
	log := newWatchedLog()
	cmd := inGroup(procs, binary, "serve", "--config", file)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line := log.wait(b, "ready", nil)
	return line["listeners"].([]any)[0].(string), func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
}

func startPostfixForBench(b *testing.B, procs, sink string) (string, func()) {
	p := newPostfix(b, fmt.Sprintf(`
relayhost = [127.0.0.1]:%s
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
`, port(sink)))
	p.start(b, procs)
	return p.addr, p.stop
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// meter measures processes by a control group of their own.
type meter struct{ dir string }

// newMeter makes a group under cgroup v1's cpuacct, or v2.
func newMeter(b *testing.B) *meter {
	name := fmt.Sprintf("postern-bench-%d-%d", os.Getpid(), time.Now().UnixNano())
	for _, root := range []string{"/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"} {
		dir := filepath.Join(root, name)
		if os.Mkdir(dir, 0o755) == nil {
			if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
				b.Cleanup(func() { os.Remove(dir) })
				return &meter{dir}
			}
			os.Remove(dir)
		}
	}
	b.Skip("SKIP: no control group to measure with; run as root")
	return nil
}

func (m *meter) procs() string { return filepath.Join(m.dir, "cgroup.procs") }

// cpu is what the group has used, in seconds.
func (m *meter) cpu() float64 {
	if b, err := os.ReadFile(filepath.Join(m.dir, "cpuacct.usage")); err == nil {
		n, _ := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
		return n / 1e9
	}
	b, _ := os.ReadFile(filepath.Join(m.dir, "cpu.stat"))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return n / 1e6
		}
	}
	return 0
}

// memory is the sum of the proportional set sizes of the group's processes, in bytes.
func (m *meter) memory() uint64 {
	pids, _ := os.ReadFile(m.procs())
	var sum uint64
	for pid := range strings.FieldsSeq(string(pids)) {
		b, _ := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, _ := strconv.ParseUint(strings.Fields(v)[0], 10, 64)
				sum += n << 10
			}
		}
	}
	return sum
}

// inGroup is a command that runs in a control group from its first instruction on.
func inGroup(procs, name string, args ...string) *exec.Cmd {
	return exec.Command("/bin/sh", append([]string{"-c", `echo $$ > "$0" && exec "$@"`, procs, name}, args...)...)
}
