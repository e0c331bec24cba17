package state

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestFacts(t *testing.T) {
	now := time.Unix(1e9, 0)
	f := NewFacts(1<<20, func() time.Time { return now })
	f.Put("a", "k", []byte("v"), time.Minute)
	f.Put("b", "k", []byte("w"), 0)
	for range 2 {
		if v, ok := f.Get("a", "k"); !ok || string(v) != "v" {
			t.Errorf("a has %q, %v", v, ok)
		}
		if v, ok := f.Get("b", "k"); !ok || string(v) != "w" {
			t.Errorf("b has %q, %v", v, ok)
		}
	}
	now = now.Add(time.Minute)
	if _, ok := f.Get("a", "k"); ok {
		t.Error("a fact outlived its lifetime")
	}
	if f.CompareAndSwap("a", "k", []byte("v"), []byte("x"), 0) {
		t.Error("a fact that is over was swapped")
	}
	if !f.CompareAndSwap("a", "k", nil, []byte("x"), 0) || f.CompareAndSwap("a", "k", nil, []byte("y"), 0) {
		t.Error("a swap from nothing has to succeed once")
	}
	if !f.CompareAndSwap("a", "k", []byte("x"), nil, 0) {
		t.Error("a swap to nothing failed")
	}
	if _, ok := f.Get("a", "k"); ok {
		t.Error("a fact is there after it was swapped for nothing")
	}
	f.Put("a", "empty", []byte{}, 0)
	if v, ok := f.Get("a", "empty"); !ok || len(v) != 0 {
		t.Error("an empty fact is none")
	}
}

func TestFactsCount(t *testing.T) {
	now := time.Unix(1e9, 0)
	f := NewFacts(1<<20, func() time.Time { return now })
	if f.Count("a", "n", 2, time.Minute) != 2 {
		t.Error("the first count is wrong")
	}
	now = now.Add(59 * time.Second)
	if n := f.Count("a", "n", 1, time.Minute); n != 3 {
		t.Errorf("the sum is %d", n)
	}
	now = now.Add(time.Second)
	if n := f.Count("a", "n", 1, time.Minute); n != 1 {
		t.Errorf("the sum is %d although the lifetime since the first count is over", n)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				f.Count("b", "n", 1, 0)
			}
		})
	}
	wg.Wait()
	if n := f.Count("b", "n", 0, 0); n != 800 {
		t.Errorf("800 counts at the same time make %d", n)
	}
}

func TestFactsBound(t *testing.T) {
	const value = 1000
	room := 10 * (value + len("k00") + factOverhead)
	f := NewFacts(room, time.Now)
	f.Put("other", "k", []byte("v"), 0)
	for _, n := range []int{9, 10, 11, 50} {
		for i := range n {
			f.Put("a", fmt.Sprintf("k%02d", i), []byte(strings.Repeat("x", value)), 0)
		}
		kept := 0
		for i := range n {
			if _, ok := f.Get("a", fmt.Sprintf("k%02d", i)); ok {
				kept++
			}
		}
		if kept != min(n, 10) {
			t.Errorf("of %d facts %d are kept, there is room for 10", n, kept)
		}
		if _, ok := f.Get("a", fmt.Sprintf("k%02d", n-1)); !ok {
			t.Errorf("the newest of %d facts is gone", n)
		}
		for i := range n {
			f.Put("a", fmt.Sprintf("k%02d", i), nil, 0)
		}
		if s := f.of("a").size; s != 0 {
			t.Errorf("nothing takes %d bytes", s)
		}
	}
	if _, ok := f.Get("other", "k"); !ok {
		t.Error("one owner pushed out another's fact")
	}
}
