package once

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
)

func TestClaim(t *testing.T) {
	k := New(10)
	var wg sync.WaitGroup
	inside := map[string]int{}
	var mu sync.Mutex
	for i := range 200 {
		wg.Go(func() {
			key := strconv.Itoa(i % 3)
			release, err := k.Claim(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			inside[key]++
			if inside[key] > 1 {
				t.Errorf("%d at once", inside[key])
			}
			mu.Unlock()
			mu.Lock()
			inside[key]--
			mu.Unlock()
			release()
		})
	}
	wg.Wait()
	if len(k.busy) != 0 {
		t.Errorf("left: %v", k.busy)
	}
	release, _ := k.Claim(t.Context(), "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Claim(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	release()
	if release, err := k.Claim(t.Context(), "x"); err != nil {
		t.Error(err)
	} else {
		release()
	}
}

func TestRemember(t *testing.T) {
	k := New(3)
	for i := range 5 {
		k.Remember(strconv.Itoa(i))
		k.Remember(strconv.Itoa(i))
	}
	for i := range 6 {
		if got := k.Remembered(strconv.Itoa(i)); got != (i >= 2 && i < 5) {
			t.Errorf("%d: %v", i, got)
		}
	}
	if len(k.stored) != 3 || len(k.order) != 3 {
		t.Errorf("%d, %d", len(k.stored), len(k.order))
	}
}
