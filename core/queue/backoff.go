package queue

import (
	"math"
	"math/rand/v2"
	"time"
)

// Backoff says how long a recipient waits between attempts: First after the first one,
// then Factor times as long after each, up to Max, each time more or less by up to the
// share Jitter, so that what failed together does not come back together. The zero value
// is not usable; see [DefaultBackoff].
type Backoff struct {
	First, Max time.Duration
	Factor     float64 // at least 1
	Jitter     float64 // 0 to less than 1
}

// DefaultBackoff is 5 minutes, doubling up to 4 hours, give or take 10 %.
func DefaultBackoff() Backoff {
	return Backoff{First: 5 * time.Minute, Max: 4 * time.Hour, Factor: 2, Jitter: 0.1}
}

// Delay is the wait after the given number of attempts, from 1; random is from [0, 1).
func (b Backoff) Delay(attempts int, random float64) time.Duration {
	// In floating point up to the end: converting earlier would cut growth off.
	d := float64(b.First) * math.Pow(b.Factor, float64(max(attempts, 1)-1))
	d = min(d, float64(b.Max))
	d *= 1 + b.Jitter*(2*random-1)
	return time.Duration(min(d, float64(b.Max)))
}

// Next is when to try again after the given number of attempts.
func (b Backoff) Next(now time.Time, attempts int) time.Time {
	return now.Add(b.Delay(attempts, rand.Float64()))
}
