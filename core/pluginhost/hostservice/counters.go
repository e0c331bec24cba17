package hostservice

import (
	"maps"
	"sync"
)

// Counters are what plugins have counted, by plugin and name. The zero value is ready for use.
type Counters struct {
	mu  sync.Mutex
	sum map[string]map[string]int64
}

// add adds to a counter; false if there are too many.
func (c *Counters) add(plugin, name string, delta int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	mine := c.sum[plugin]
	if mine == nil {
		if c.sum == nil {
			c.sum = make(map[string]map[string]int64)
		}
		mine = make(map[string]int64)
		c.sum[plugin] = mine
	}
	if _, ok := mine[name]; !ok && len(mine) >= maxCounters {
		return false
	}
	mine[name] += delta
	return true
}

// Of returns what a plugin has counted; nil: nothing.
func (c *Counters) Of(plugin string) map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.sum[plugin])
}
