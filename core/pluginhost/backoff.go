package pluginhost

import "time"

// backoff decides how long a plugin that died waits.
type backoff struct {
	timing timing
	deaths int  // in a row
	open   bool // the breaker
}

// died returns the delay after a death at that age and after so many calls.
func (b *backoff) died(age time.Duration, answered int64) time.Duration {
	if age >= b.timing.stable {
		b.deaths, b.open = 0, false
	}
	b.deaths++
	switch {
	case b.deaths >= b.timing.breaker:
		b.open = true
		return b.timing.last
	case answered == 0 && age < b.timing.young:
		// It does not even survive its first call: structural, trying again does not help.
		return b.timing.last
	case b.deaths == 1:
		return 0
	}
	return b.grown(b.deaths - 2)
}

// failed returns the delay after a start that did not succeed.
func (b *backoff) failed() time.Duration {
	b.deaths++
	b.open = b.open || b.deaths >= b.timing.breaker
	return b.grown(b.deaths - 1)
}

// pardon takes the last death back.
func (b *backoff) pardon() {
	b.deaths = max(b.deaths-1, 0)
	b.open = b.open && b.deaths >= b.timing.breaker
}

func (b *backoff) grown(doublings int) time.Duration {
	if doublings > 20 {
		return b.timing.last
	}
	return min(b.timing.first<<doublings, b.timing.last)
}
