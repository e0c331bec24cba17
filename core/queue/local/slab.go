package local

import "math/bits"

// loc says where an item is. The zero loc is nowhere.
type loc struct{ seg, off, size uint32 }

// entry is what memory holds of an entry: 48 bytes, no pointers.
type entry struct {
	id      uint64
	loc     loc    // its add or move item
	message uint32 // size of the message item that follows
	first   uint32 // its recipients are rcpts first to first+count-1
	count   uint32
	open    uint32 // recipients that are not final
	fresh   uint32 // recipients whose first attempt costs no write
	content uint32 // index of its content file, or 0
}

// rcpt is what memory holds of a recipient: 40 bytes, no pointers.
type rcpt struct {
	due      int64 // when pending: due; when leased: end of the lease; see clock.at
	entry    uint32
	dest     uint32
	loc      loc   // its last result; nowhere: the record in the entry's own item
	pos      int32 // in the heap of its destination, or of the leases; -1: in none
	attempts uint16
	state    uint8
	flags    uint8
}

const (
	flagCounted = 1 << iota // the next attempt is durable already
	flagLeased
	flagTouched // a commit under way changes the record
	flagEnding  // a commit under way makes the record final
)

const (
	chunkBits = 15
	chunkSize = 1 << chunkBits
	// maxRecipients of one entry: a block of them lies within one chunk.
	maxRecipients = chunkSize
)

// slab holds values that the garbage collector need not look at, in blocks of consecutive
// ones. Index 0 is never used. Pointers to values stay valid.
type slab[T any] struct {
	chunks [][]T
	next   uint32
	free   [chunkBits + 1][]uint32 // by the power of two that the block has room for
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i>>chunkBits][i&(chunkSize-1)] }

// alloc returns the index of the first of n zero values.
func (s *slab[T]) alloc(n int) uint32 {
	class := bits.Len(uint(n - 1))
	if l := s.free[class]; len(l) > 0 {
		i := l[len(l)-1]
		s.free[class] = l[:len(l)-1]
		return i
	}
	size := uint32(1) << class
	if s.next == 0 {
		s.next = size // leaves 0 out and keeps blocks aligned
	}
	i := (s.next + size - 1) &^ (size - 1)
	s.keepRest(s.next, i)
	s.next = i + size
	for int((s.next-1)>>chunkBits) >= len(s.chunks) {
		s.chunks = append(s.chunks, make([]T, chunkSize))
	}
	return i
}

// keepRest puts what alignment skips into the free lists.
func (s *slab[T]) keepRest(from, to uint32) {
	for from < to {
		class := bits.TrailingZeros32(from)
		s.free[class] = append(s.free[class], from)
		from += 1 << class
	}
}

// release gives a block of n values back.
func (s *slab[T]) release(i uint32, n int) {
	var zero T
	for k := range uint32(n) {
		*s.at(i + k) = zero
	}
	class := bits.Len(uint(n - 1))
	s.free[class] = append(s.free[class], i)
}

// heap is a binary heap of indexes; the keys and positions are elsewhere.
type heap struct{ ids []uint32 }

// heapKeys tells a heap where its keys and positions are.
type heapKeys interface {
	key(id uint32) int64
	pos(id uint32) *int32
}

func (h *heap) empty() bool { return len(h.ids) == 0 }
func (h *heap) top() uint32 { return h.ids[0] }

func (h *heap) push(k heapKeys, id uint32) {
	h.ids = append(h.ids, id)
	h.up(k, len(h.ids)-1)
}

func (h *heap) remove(k heapKeys, id uint32) {
	i := int(*k.pos(id))
	last := len(h.ids) - 1
	moved := h.ids[last]
	h.ids = h.ids[:last]
	*k.pos(id) = -1
	if i < last {
		h.ids[i] = moved
		*k.pos(moved) = int32(i)
		h.fix(k, moved)
	}
	if cap(h.ids) > 64 && len(h.ids) < cap(h.ids)/4 {
		h.ids = append(make([]uint32, 0, cap(h.ids)/2), h.ids...)
	}
}

// fix restores the order after the key of id has changed.
func (h *heap) fix(k heapKeys, id uint32) {
	h.down(k, h.up(k, int(*k.pos(id))))
}

func (h *heap) up(k heapKeys, i int) int {
	id := h.ids[i]
	key := k.key(id)
	for i > 0 {
		parent := (i - 1) / 2
		if k.key(h.ids[parent]) <= key {
			break
		}
		h.ids[i] = h.ids[parent]
		*k.pos(h.ids[i]) = int32(i)
		i = parent
	}
	h.ids[i] = id
	*k.pos(id) = int32(i)
	return i
}

func (h *heap) down(k heapKeys, i int) {
	id := h.ids[i]
	key := k.key(id)
	for {
		child := 2*i + 1
		if child >= len(h.ids) {
			break
		}
		if child+1 < len(h.ids) && k.key(h.ids[child+1]) < k.key(h.ids[child]) {
			child++
		}
		if k.key(h.ids[child]) >= key {
			break
		}
		h.ids[i] = h.ids[child]
		*k.pos(h.ids[i]) = int32(i)
		i = child
	}
	h.ids[i] = id
	*k.pos(id) = int32(i)
}
