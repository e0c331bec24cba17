package pluginhost

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/sdk/mail"
)

// cpu is the processor time of this process and of one plugin.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	var ns int64
	tasks, _ := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	for _, task := range tasks {
		s, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + task.Name() + "/schedstat")
		run, _, _ := strings.Cut(string(s), " ")
		n, _ := strconv.ParseInt(run, 10, 64)
		ns += n
	}
	return time.Duration(ts.Nano() + ns)
}

// BenchmarkFilter4K is one look at a message of 4 KiB, by one caller and by eight at once, over
// the stream and by a method call each.
func BenchmarkFilter4K(b *testing.B) {
	for _, callers := range []int{1, 8} {
		for _, way := range []string{"unary", "stream"} {
			b.Run(fmt.Sprintf("%s-%d", way, callers), func(b *testing.B) { look4K(b, way == "unary", callers) })
		}
	}
}

func look4K(b *testing.B, unary bool, callers int) {
	tm := defaultTiming()
	tm.unary = unary
	h, _ := start(b, tm, use("filter"))
	f := filterOf(b, h, "filter")
	m := msg("look")
	m.Header = mail.NewHeader([]byte("Subject: look\r\nReceived: " + strings.Repeat("x", 900) + "\r\n\r\n"))
	m.Body = mail.InlineBody(bytes.Repeat([]byte("0123456789abcd\r\n"), 192))
	pid := pidOf(b, h, "filter")
	before := cpu(b, pid)
	b.ReportAllocs()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := f.Filter(context.Background(), m); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b, pid)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkStart is from fork to the first answer.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		tm := defaultTiming()
		h, err := Start(b.Context(), Options{RunDir: b.TempDir() + "/r", Log: slog.New(slog.DiscardHandler), timing: &tm}, []Spec{use("filter")})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := filterOf(b, h, "filter").Filter(b.Context(), msg("look")); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		h.Close(b.Context())
		b.StartTimer()
	}
}
