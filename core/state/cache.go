// Package state keeps small facts for a while: counts of messages, failed log-ins,
// answers that were dear to get. It promises a bound on their number; what does not fit
// any more is forgotten, the longest unused first. Nothing is durable: after a restart
// all counts begin again. It refuses to know what the facts mean.
package state

import (
	"container/list"
	"sync"
)

// Cache is a map of at most a fixed number of entries. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	mu    sync.Mutex
	max   int
	order *list.List // of *entry, most recently used first
	items map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// NewCache makes a cache of at most max entries (at least one).
func NewCache[K comparable, V any](max int) *Cache[K, V] {
	return &Cache[K, V]{max: max, order: list.New(), items: make(map[K]*list.Element)}
}

// Update calls f with the value of key, the zero value if there is none, and keeps what f
// leaves there. f runs under the cache's lock: it must be quick and must not use the cache.
func (c *Cache[K, V]) Update(key K, f func(v *V)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.items[key]
	if ok {
		c.order.MoveToFront(el)
	} else {
		for len(c.items) >= c.max && len(c.items) > 0 {
			oldest := c.order.Back()
			delete(c.items, oldest.Value.(*entry[K, V]).key)
			c.order.Remove(oldest)
		}
		el = c.order.PushFront(&entry[K, V]{key: key})
		c.items[key] = el
	}
	f(&el.Value.(*entry[K, V]).value)
}

// Get returns the value of key and whether there is one.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.items[key]
	if !ok {
		var zero V
		return zero, false
	}
	c.order.MoveToFront(el)
	return el.Value.(*entry[K, V]).value, true
}

// Set keeps a value.
func (c *Cache[K, V]) Set(key K, v V) { c.Update(key, func(p *V) { *p = v }) }

// Delete forgets a key.
func (c *Cache[K, V]) Delete(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[key]; ok {
		c.order.Remove(el)
		delete(c.items, key)
	}
}

// Len is the number of entries.
func (c *Cache[K, V]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.items)
}

// Oldest returns the longest unused entry, without using it.
func (c *Cache[K, V]) Oldest() (key K, v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.order.Back()
	if el == nil {
		return key, v, false
	}
	e := el.Value.(*entry[K, V])
	return e.key, e.value, true
}
