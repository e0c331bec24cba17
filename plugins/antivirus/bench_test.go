package antivirus

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// What the plugin itself costs, and the engine beside it: CPU-µs/op is this process alone.
func BenchmarkScan(b *testing.B) {
	e := peertest.StartClamd(b)
	for name, settings := range map[string]string{
		"unix":   settings("", "unix:"+e.Socket),
		"TCP":    settings("", e.Address),
		"FILDES": settings("fildes = true", "unix:"+e.Socket),
	} {
		p := plugin(b, settings)
		for size, text := range map[string]string{"4KiB": strings.Repeat("0123456789abcd\r\n", 256), "900KiB": strings.Repeat("0123456789abcd\r\n", 900<<6)} {
			file := filepath.Join(b.TempDir(), "body")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
			m := message(head + text)
			if size != "4KiB" {
				m.Body = mail.Body{Path: file, Size: int64(len(text))}
			}
			b.Run(name+"/"+size, func(b *testing.B) {
				b.ReportAllocs()
				begin := cpu()
				for b.Loop() {
					if v, err := p.Filter(b.Context(), m); err != nil || v.Notes["result"] != "clean" {
						b.Fatal(v, err)
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
