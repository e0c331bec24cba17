package queue

import (
	"testing"
	"time"
)

func TestBackoffGrows(t *testing.T) {
	b := DefaultBackoff()
	want := []time.Duration{0: 5 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute, 160 * time.Minute, 4 * time.Hour, 4 * time.Hour}
	for attempts, w := range want {
		if got := b.Delay(attempts, 0.5); got != w {
			t.Errorf("after %d attempts: %s, want %s", attempts, got, w)
		}
	}
	for _, attempts := range []int{100, 5000, 1 << 30} { // no overflow
		if got := b.Delay(attempts, 0.5); got != b.Max {
			t.Errorf("after %d attempts: %s", attempts, got)
		}
	}
	slow := Backoff{First: time.Minute, Max: time.Hour, Factor: 1.25}
	for n := 1; n < 10; n++ { // a small factor grows from the first try on
		if slow.Delay(n+1, 0) <= slow.Delay(n, 0) {
			t.Errorf("no growth between attempts %d and %d", n, n+1)
		}
	}
}

func TestBackoffJitter(t *testing.T) {
	b := DefaultBackoff()
	if lo, hi := b.Delay(1, 0), b.Delay(1, 0.999999); lo < 269*time.Second || lo > 271*time.Second || hi < 329*time.Second || hi > 330*time.Second {
		t.Errorf("from %s to %s", lo, hi)
	}
	if b.Delay(20, 0.999) > b.Max {
		t.Error("jitter exceeds the maximum")
	}
	now := time.Unix(1e9, 0)
	seen := make(map[time.Time]bool)
	for range 20 {
		seen[b.Next(now, 3)] = true
	}
	if len(seen) < 2 {
		t.Error("no jitter")
	}
}
