package main_test

import (
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The plugin benchmark: what a message costs with plugins that only look, and what each of
// them adds. Bodies of 4 KiB travel in the call, larger ones by path. CPU is that of the
// gateway and its plugins together.
//
// What counts is the steady state: a quarter as many messages go through each gateway before
// anything is measured, for the first calls and the growth of the heaps. The gateways with 0,
// 1, 3 and 5 plugins run side by side and get the messages in turns, so that what else the
// machine does meanwhile weighs on all of them alike. Two runs with 8,000 messages on a
// machine with more work than processors differ by up to a tenth, most of it in all figures
// alike: then look at what a plugin costs beside a message without any.
//
//	go test -run '^$' -bench Plugins -benchtime 1x -v ./cmd/postern -plugins.messages 20000

var pluginMessages = flag.Int("plugins.messages", 8000, "messages of 4 KiB for each number of plugins; of larger ones there are fewer")

func BenchmarkPlugins(b *testing.B) {
	look := lookProgram(b)
	defer func(size int) { *benchSize = size }(*benchSize)
	for _, size := range []struct {
		name  string
		bytes int
		fewer int
	}{{"4KiB", 4 << 10, 1}, {"100KiB", 100 << 10, 16}, {"5MB", 5_000_000, 160}} {
		b.Run(size.name, func(b *testing.B) {
			*benchSize = size.bytes
			for range b.N {
				lookedAt(b, look, max(*pluginMessages/size.fewer, 1))
			}
		})
	}
}

// turns is in how many the messages are sent.
const turns = 8

// lookedAt measures so many messages of one size.
func lookedAt(b *testing.B, look string, messages int) {
	numbers := []int{0, 1, 3, 5}
	var gateways []*relaying
	for _, n := range numbers {
		g := newRelaying(b, fmt.Sprintf("%d plugins", n), startWithPlugins(look, n))
		defer g.stop()
		g.warmUp(b, max(messages/4, 1))
		gateways = append(gateways, g)
	}
	for turn := range turns {
		for _, g := range gateways {
			if n := messages*(turn+1)/turns - messages*turn/turns; n > 0 {
				g.send(b, n)
			}
		}
	}
	none := gateways[0].cpu / float64(messages) * 1000
	for i, n := range numbers {
		f := gateways[i].figures()
		perMessage := f.cpu / float64(messages) * 1000
		line := fmt.Sprintf("%s %8.3f ms of CPU a message  %6.0f msg/s  peak %5.1f MiB", f.name, perMessage, f.perSecond, float64(f.peak)/(1<<20))
		if n > 0 {
			each := (perMessage - none) / float64(n)
			line += fmt.Sprintf("  each plugin %6.3f ms", each)
			b.ReportMetric(each, fmt.Sprintf("ms/plugin-of-%d", n))
		}
		b.ReportMetric(perMessage, fmt.Sprintf("ms/msg-with-%d", n))
		b.Log(line)
	}
}

// The memory benchmark: twenty messages of 50 MB at the same time, through five plugins that
// read all of each. The peak is that of the gateway and all its processes together, as the
// sum of their proportional set sizes, looked at ten times a second.
//
//	go test -run '^$' -bench Memory -benchtime 1x ./cmd/postern
func BenchmarkMemory(b *testing.B) {
	const target = 200 << 20
	look := lookProgram(b)
	defer func(messages, size, sessions int) {
		*benchMessages, *benchSize, *benchSessions = messages, size, sessions
	}(*benchMessages, *benchSize, *benchSessions)
	*benchMessages, *benchSize, *benchSessions = 20, 50_000_000, 20
	for range b.N {
		f := relay(b, "five plugins", startWithPlugins(look, 5, "[limits]\nmessage_size = \"64MiB\"\n"))
		mib := float64(f.peak) / (1 << 20)
		b.ReportMetric(mib, "peak-MiB")
		b.Logf("%d messages of %d MB at once, 5 plugins: peak %.1f MiB of %d allowed, in %.1f s", *benchMessages, *benchSize/1_000_000, mib, target>>20, f.seconds)
		if f.peak == 0 || f.peak > target {
			b.Errorf("the peak is %.1f MiB, and %d is the target", mib, target>>20)
		}
	}
}

// lookProgram builds the plugin that only looks.
func lookProgram(b *testing.B) string {
	b.Helper()
	look := filepath.Join(b.TempDir(), "look")
	cmd := exec.Command("go", "build", "-o", look, "./testdata/plugins/look")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return look
}

// startWithPlugins starts a gateway with n plugins of that program, and more configuration.
func startWithPlugins(program string, n int, more ...string) startGateway {
	return func(b *testing.B, procs, sink string) (string, func()) {
		var plugins strings.Builder
		plugins.WriteString(strings.Join(more, ""))
		for i := range n {
			fmt.Fprintf(&plugins, "[[plugin]]\nname = \"look%d\"\ncommand = %q\n", i, program)
		}
		file := write(b, b.TempDir(), fmt.Sprintf(`
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
%s`, sink, plugins.String()))
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
}
