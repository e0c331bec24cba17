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
// gateway and its plugins together, in one run.
//
//	go test -run '^$' -bench Plugins -benchtime 1x ./cmd/postern -plugins.messages 5000

var pluginMessages = flag.Int("plugins.messages", 2000, "messages of 4 KiB for each number of plugins; of larger ones there are fewer")

func BenchmarkPlugins(b *testing.B) {
	look := lookProgram(b)
	defer func(messages, size int) { *benchMessages, *benchSize = messages, size }(*benchMessages, *benchSize)
	for _, size := range []struct {
		name  string
		bytes int
		fewer int
	}{{"4KiB", 4 << 10, 1}, {"100KiB", 100 << 10, 4}, {"5MB", 5_000_000, 40}} {
		b.Run(size.name, func(b *testing.B) {
			*benchMessages, *benchSize = max(*pluginMessages/size.fewer, 1), size.bytes
			for range b.N {
				var none float64
				for _, n := range []int{0, 1, 3, 5} {
					f := relay(b, fmt.Sprintf("%d plugins", n), startWithPlugins(look, n))
					perMessage := f.cpu / float64(*benchMessages) * 1000
					line := fmt.Sprintf("%d plugins %8.3f ms of CPU a message  %6.0f msg/s  peak %5.1f MiB", n, perMessage, f.perSecond, float64(f.peak)/(1<<20))
					if n == 0 {
						none = perMessage
					} else {
						each := (perMessage - none) / float64(n)
						line += fmt.Sprintf("  each plugin %6.3f ms", each)
						b.ReportMetric(each, fmt.Sprintf("ms/plugin-of-%d", n))
					}
					b.ReportMetric(perMessage, fmt.Sprintf("ms/msg-with-%d", n))
					b.Log(line)
				}
			}
		})
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
func startWithPlugins(program string, n int, more ...string) func(b *testing.B, procs, sink string) (string, func()) {
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
