package main_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-milter"
)

// The milter benchmark: what a filter that only looks costs as a plugin of Postern, and the
// same filter as a milter of Postfix, in one run. It reads the header and the whole body and
// has no objection; it is a process of its own, written in Go, in both cases. CPU is that of
// the mail server and the filter together.
//
//	go test -run '^$' -bench Milter -benchtime 1x ./cmd/postern -relay.messages 5000

func BenchmarkMilter(b *testing.B) {
	if _, err := os.Stat("/usr/sbin/postfix"); err != nil || os.Getuid() != 0 {
		b.Skip("SKIP: Postfix is not installed, or this is not root")
	}
	look := filepath.Join(b.TempDir(), "look")
	cmd := exec.Command("go", "build", "-o", look, "./testdata/plugins/look")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	for range b.N {
		cost := func(name string, start func(*testing.B, string, string) (string, func())) float64 {
			f := relay(b, name, start)
			ms := f.cpu / float64(*benchMessages) * 1000
			b.Logf("%-21s %8.3f ms of CPU a message  %6.0f msg/s", name, ms, f.perSecond)
			return ms
		}
		postfix := cost("Postfix", startPostfixForBench)
		withMilter := cost("Postfix, 1 milter", startPostfixWithMilter)
		postern := cost("Postern", startWithPlugins(look, 0))
		withPlugin := cost("Postern, 1 plugin", startWithPlugins(look, 1))
		adapted := cost("Postern, 1 milter", startWithMilter)
		milter, plugin := withMilter-postfix, withPlugin-postern
		b.Logf("the milter adds %.3f ms (%.0f%%), the plugin %.3f ms (%.0f%%): the plugin takes %.2f of the milter's CPU, Postern with it %.2f of that of Postfix with the milter",
			milter, milter/postfix*100, plugin, plugin/postern*100, plugin/milter, withPlugin/withMilter)
		b.Logf("through its own plugin the same milter adds %.3f ms to Postern (%.0f%%), %.2f of what it adds to Postfix; Postern with it takes %.2f of Postfix with it",
			adapted-postern, (adapted-postern)/postern*100, (adapted-postern)/milter, adapted/withMilter)
		b.ReportMetric(milter, "ms/milter")
		b.ReportMetric(plugin, "ms/plugin")
		b.ReportMetric(plugin/milter, "plugin/milter")
		b.ReportMetric(withPlugin/withMilter, "postern/postfix")
		b.ReportMetric(adapted/withMilter, "adapted/postfix")
	}
}

// startPostfixWithMilter starts a Postfix that asks a milter about every message.
func startPostfixWithMilter(b *testing.B, procs, sink string) (string, func()) {
	addr, seen := startMilter(b, procs)
	p := newPostfix(b, fmt.Sprintf(`
relayhost = [127.0.0.1]:%s
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
smtpd_milters = inet:%s
milter_default_action = tempfail
`, port(sink), addr))
	p.start(b, procs)
	return p.addr, func() {
		p.stop()
		seen()
	}
}

// startWithMilter starts a gateway that asks the same milter, through its plugin.
func startWithMilter(b *testing.B, procs, sink string) (string, func()) {
	addr, seen := startMilter(b, procs)
	gateway, stop := startWithPlugins("", 0, withMilter("look", addr, ""))(b, procs, sink)
	return gateway, func() {
		stop()
		seen()
	}
}

// startMilter starts the milter and returns its address. After the run, when its client has
// ended, it has to have seen all messages.
func startMilter(b *testing.B, procs string) (addr string, seen func()) {
	addr = freePort(b)
	cmd := inGroup(procs, os.Args[0], "-test.run", "^TestMilterProcess$", "-test.timeout", "0")
	cmd.Env = append(os.Environ(), milterEnv+"="+addr)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	b.Cleanup(func() { stdin.Close(); <-ended })
	waitFor(b, addr, ended)
	return addr, func() {
		stdin.Close()
		<-ended
		var messages, octets int
		if _, err := fmt.Sscanf(out.String(), "seen %d messages, %d octets of body", &messages, &octets); err != nil ||
			messages != *benchMessages || octets < messages*(*benchSize-200) {
			b.Fatalf("not every message went through the milter: %d messages, %d octets\n%s", messages, octets, out.Bytes())
		}
	}
}

const milterEnv = "POSTERN_TEST_MILTER"

// TestMilterProcess is the milter: the benchmark runs the test binary again, with an address
// in the environment. It ends with its standard input and says what it has seen.
func TestMilterProcess(t *testing.T) {
	addr := os.Getenv(milterEnv)
	if addr == "" {
		t.Skip("for BenchmarkMilter, which runs it as a process of its own")
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var messages, octets atomic.Int64
	s := milter.Server{
		NewMilter: func() milter.Milter { return &lookMilter{messages: &messages, octets: &octets} },
		// It asks for no more than the plugin does with its manifest: the text.
		Protocol: milter.OptNoConnect | milter.OptNoHelo | milter.OptNoMailFrom | milter.OptNoRcptTo,
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	io.Copy(io.Discard, os.Stdin)
	ln.Close()
	select {
	case <-served:
	case <-time.After(patience):
		t.Error("the milter does not end")
	}
	fmt.Printf("seen %d messages, %d octets of body\n", messages.Load(), octets.Load())
}

// lookMilter reads everything and changes nothing.
type lookMilter struct {
	milter.NoOpMilter
	read             int64
	messages, octets *atomic.Int64
}

func (l *lookMilter) BodyChunk(chunk []byte, _ *milter.Modifier) (milter.Response, error) {
	n, err := io.Copy(io.Discard, bytes.NewReader(chunk))
	l.read += n
	return milter.RespContinue, err
}

func (l *lookMilter) Body(*milter.Modifier) (milter.Response, error) {
	l.messages.Add(1)
	l.octets.Add(l.read)
	return milter.RespAccept, nil
}
