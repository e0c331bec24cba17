package mailauth

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest"
)

// A message of 10 KB with an Ed25519 signature, SPF and DMARC, DNS answers at hand, as for most mail of a busy gateway.
func BenchmarkFilter(b *testing.B) {
	p := newPlugin(b, zones(), "")
	wire := signed(b, "reject.test", fmt.Sprintf(text, "reject.test")+strings.Repeat("0123456789 and more of it\r\n", 400))
	m := message("ann@reject.test", "192.0.2.1", wire)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sdktest.Filter(b, p, Manifest(), m); err != nil {
			b.Fatal(err)
		}
	}
}
