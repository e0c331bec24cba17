package sieve

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// BenchmarkPlan plans with an active script of 50 rules, compiled before; "anew" compiles it each time.
// What it asks the gateway for goes over a socket, as in life.
func BenchmarkPlan(b *testing.B) {
	var s strings.Builder
	s.WriteString("require [\"fileinto\"];\n")
	for i := range 50 {
		fmt.Fprintf(&s, "if allof(header :contains \"Subject\" \"word%d\", address :is \"From\" \"x%d@example.com\") { fileinto \"f%d\"; stop; }\n", i, i, i)
	}
	h := sdktest.NewHost(b)
	p := New()
	if err := p.Configure(b.Context(), sdk.Config{Hostname: "mx.example.org", Host: h.Handle}); err != nil {
		b.Fatal(err)
	}
	if err := p.scripts.Put(b.Context(), alice, "main", []byte(s.String())); err != nil {
		b.Fatal(err)
	}
	if err := p.scripts.Activate(b.Context(), alice, "main"); err != nil {
		b.Fatal(err)
	}
	m := message(hello)
	plan := func(b *testing.B) {
		if plan, err := p.Plan(b.Context(), m); err != nil || len(plan.Actions) != 1 {
			b.Fatal(plan, err)
		}
	}
	b.Run("compiled", func(b *testing.B) {
		for b.Loop() {
			plan(b)
		}
	})
	b.Run("anew", func(b *testing.B) {
		for b.Loop() {
			p.compiled = newCache(p.settings.EngineOptions())
			plan(b)
		}
	})
}
