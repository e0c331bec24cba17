package state

import (
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	r := NewRate[string](2)
	begun := time.Unix(1_800_000_000, 0)
	take := func(key string, after time.Duration, tries, want int) {
		t.Helper()
		got := 0
		for range tries {
			if r.Take(key, 4, time.Hour, begun.Add(after)) {
				got++
			}
		}
		if got != want {
			t.Errorf("%s after %s: %d of %d, want %d", key, after, got, tries, want)
		}
	}
	take("a", 0, 10, 4)
	take("b", 0, 2, 2) // each key has its own
	take("a", 59*time.Minute, 3, 0)
	take("a", 90*time.Minute, 10, 2) // half of the last window counts
	take("a", 4*time.Hour, 10, 4)
	take("a", -time.Hour, 1, 1) // the clock was set back
	if !r.Take("c", 0, time.Hour, begun) || r.Len() != 2 {
		t.Errorf("%d keys", r.Len())
	}
	take("c", 0, 1, 1)
	take("d", 0, 1, 1)
	if r.Len() != 2 {
		t.Errorf("%d keys, want no more than 2", r.Len())
	}
}
