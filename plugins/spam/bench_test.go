package spam

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// What the plugin itself costs, beside the engine: CPU-µs/op is this process alone.
func BenchmarkJudge(b *testing.B) {
	for name, settings := range map[string]string{
		"rspamd":       fmt.Sprintf("url = %q", peertest.StartRspamd(b).URL),
		"spamassassin": fmt.Sprintf("engine = \"spamassassin\"\naddress = %q", peertest.StartSpamd(b).Address),
	} {
		p := plugin(b, settings)
		for size, n := range map[string]int{"4KiB": 256, "1MiB": 1 << 16, "16MiB-head": 1 << 20} {
			m := message(text + strings.Repeat("0123456789abcd\r\n", n))
			b.Run(name+"/"+size, func(b *testing.B) {
				b.ReportAllocs()
				begin := cpu()
				for b.Loop() {
					if _, err := p.Filter(b.Context(), m); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric((cpu()-begin)/float64(b.N), "CPU-µs/op")
			})
		}
	}
}

// cpu is the time that this process has used, in microseconds.
func cpu() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1000
}
