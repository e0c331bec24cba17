package frame

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// Pool is where the memory of calls and answers comes from. That of gRPC hands out 16 KiB,
// zeroed, for a message of 4.
var Pool mem.BufferPool = tiers{}

type tiers struct{}

// The sizes, in bytes; what is larger is not kept.
const (
	small  = 1 << 10
	middle = 8 << 10
	large  = 128 << 10
)

var smalls, middles, larges sync.Pool

func tier(size int) (*sync.Pool, int) {
	switch {
	case size <= small:
		return &smalls, small
	case size <= middle:
		return &middles, middle
	case size <= large:
		return &larges, large
	}
	return nil, size
}

// Get implements mem.BufferPool. What is in the memory is anything.
func (tiers) Get(length int) *[]byte {
	pool, size := tier(length)
	if pool != nil {
		if b, _ := pool.Get().(*[]byte); b != nil {
			*b = (*b)[:length]
			return b
		}
	}
	b := make([]byte, length, size)
	return &b
}

// Put implements mem.BufferPool.
func (tiers) Put(b *[]byte) {
	if pool, size := tier(cap(*b)); pool != nil && size == cap(*b) {
		pool.Put(b)
	}
}
