package state

import "time"

// Rate counts events, of a client or a sender say, in a window that slides: the count of the
// last full window fades out as the present one goes on. It is safe for concurrent use.
type Rate[K comparable] struct {
	windows *Cache[K, window]
}

type window struct {
	start        time.Time
	now, earlier int // events in this window and in the one before
}

// NewRate makes a Rate of at most max keys; beyond them the longest unused begins again.
func NewRate[K comparable](max int) *Rate[K] { return &Rate[K]{NewCache[K, window](max)} }

// Take counts one event of key and reports whether it is within limit events in length; a limit
// of 0 is none. What is refused is not counted: who slows down gets through.
func (r *Rate[K]) Take(key K, limit int, length time.Duration, now time.Time) bool {
	if limit <= 0 {
		return true
	}
	ok := false
	r.windows.Update(key, func(w *window) {
		switch since := now.Sub(w.start); {
		case w.start.IsZero(), since >= 2*length, since < 0: // also a clock that was set back
			*w = window{start: now}
		case since >= length:
			*w = window{start: w.start.Add(length), earlier: w.now}
		}
		left := float64(length-now.Sub(w.start)) / float64(length)
		if ok = float64(w.now)+float64(w.earlier)*left+1 <= float64(limit); ok {
			w.now++
		}
	})
	return ok
}

// Len is the number of keys that are counted.
func (r *Rate[K]) Len() int { return r.windows.Len() }
