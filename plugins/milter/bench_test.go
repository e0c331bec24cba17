package milter

import (
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// BenchmarkOpenDKIM is one message at a time through a real milter.
func BenchmarkOpenDKIM(b *testing.B) {
	key, _ := newKey(b)
	o := peertest.StartOpenDKIM(b, map[string]string{"key": key}, "Mode s", "Domain example.org", "Selector sel", "KeyFile $DIR/key")
	p := configured(b, o.Address, "")
	for b.Loop() {
		v, err := p.Filter(b.Context(), message(hard["folded"], "bob@elsewhere.test"))
		if err != nil || len(v.Edits) != 1 {
			b.Fatalf("%+v, %v", v, err)
		}
	}
}

// BenchmarkDialogue is one message through a milter that does nothing, with and without the
// connection that each message takes.
func BenchmarkDialogue(b *testing.B) {
	f := newFake(b, agreeable(0, 0, nil))
	p := configured(b, f.addr, "")
	m := message(hard["folded"], "bob@elsewhere.test")
	b.Run("message", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v, err := p.Filter(b.Context(), m); err != nil || v.Notes["answer"] == "" {
				b.Fatal(v, err)
			}
		}
	})
	b.Run("connection", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d := &dialogue{p: p, m: m, ctx: b.Context()}
			if err := d.open(); err != nil {
				b.Fatal(err)
			}
			d.session.Close()
		}
	})
}
