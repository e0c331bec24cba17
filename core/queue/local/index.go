package local

import (
	"time"

	"github.com/postern-mail/postern/core/queue"
)

// index is what memory knows of the log. It has no lock of its own.
type index struct {
	schedule
	clock    clock
	maxDelay time.Duration // nobody waits longer, whatever the wall clock says
	entries  slab[entry]
	ids      map[queue.ID]uint32
	contents contents
	marks    map[[16]byte]mark
	segs     map[uint32]*segment
	cache    cache
}

// mark is a remembered key.
type mark struct {
	until int64 // Unix nanoseconds
	seg   uint32
}

func newIndex(c clock, maxDelay time.Duration, cacheSize int) index {
	return index{
		schedule: newSchedule(), clock: c, maxDelay: maxDelay,
		ids: make(map[queue.ID]uint32), marks: make(map[[16]byte]mark), segs: make(map[uint32]*segment),
		contents: newContents(), cache: newCache(cacheSize),
	}
}

// dueAt turns a stored time into a due time, at most maxDelay away.
func (x *index) dueAt(next int64, now time.Time) int64 {
	wait := time.Duration(0)
	if next != noTime {
		wait = min(max(time.Unix(0, next).Sub(now), 0), x.maxDelay)
	}
	return x.clock.at(now) + int64(wait)
}

// insert adds an entry whose records are still to be set with begin.
func (x *index) insert(id queue.ID, at loc, message uint32, content []byte, count int) uint32 {
	i := x.entries.alloc(1)
	first := x.rcpts.alloc(count)
	*x.entries.at(i) = entry{id: uint64(id), loc: at, message: message, first: first, count: uint32(count), open: uint32(count), content: x.contents.ref(content)}
	for k := range uint32(count) {
		*x.rcpts.at(first + k) = rcpt{entry: i, pos: -1}
	}
	x.ids[id] = i
	x.segs[at.seg].live(int64(at.size) + int64(message))
	return i
}

// begin sets the record of a recipient for the first time.
func (x *index) begin(id uint32, class queue.Class, b brief, fresh bool, now time.Time) {
	r := x.rcpts.at(id)
	r.state, r.attempts = uint8(b.state), clampAttempts(b.attempts)
	e := x.entries.at(r.entry)
	if b.state.Final() {
		e.open--
		return
	}
	r.dest = x.intern(class, b.dest)
	if b.state != queue.Pending {
		return
	}
	switch {
	case b.attempts > 1 || b.attempts == 0 && fresh:
		r.due = x.dueAt(b.next, now)
	default: // its first attempt is counted in the commit that added it
		r.due = x.clock.at(now)
		if fresh {
			r.flags |= flagCounted
			e.fresh++
		}
	}
	x.enqueue(id)
}

func clampAttempts(n int) uint16 { return uint16(min(n, 1<<16-1)) }

// set replaces the record of a recipient. The caller calls end for entries without open
// recipients.
func (x *index) set(id uint32, b brief, at loc, now time.Time) {
	r := x.rcpts.at(id)
	e := x.entries.at(r.entry)
	x.dequeue(id)
	x.counted(r, e)
	x.relocate(r, e, at)
	r.state, r.attempts = uint8(b.state), clampAttempts(b.attempts)
	old := r.dest
	if b.state.Final() {
		e.open--
		r.dest = 0
	} else {
		r.dest = x.intern(x.dests[old].class, b.dest)
	}
	x.forget(old)
	if b.state == queue.Pending {
		r.due = x.dueAt(b.next, now)
		x.enqueue(id)
	}
}

// counted ends the state of a recipient whose next attempt is durable.
func (x *index) counted(r *rcpt, e *entry) {
	if r.flags&flagCounted == 0 {
		return
	}
	r.flags &^= flagCounted
	if e.fresh > 0 {
		if e.fresh--; e.fresh == 0 {
			x.cache.remove(queue.ID(e.id))
		}
	}
}

// relocate notes where the last record of a recipient is.
func (x *index) relocate(r *rcpt, e *entry, at loc) {
	if r.loc.seg != 0 {
		x.segs[r.loc.seg].dead(int64(r.loc.size))
	}
	r.loc = at
	if at.seg != 0 {
		s := x.segs[at.seg]
		s.live(int64(at.size))
		s.dependOn(e.loc.seg)
	}
}

// end forgets an entry that is done. It returns the content file that nothing refers to
// any more, or "".
func (x *index) end(i uint32) string {
	e := x.entries.at(i)
	x.segs[e.loc.seg].dead(int64(e.loc.size) + int64(e.message))
	for k := range e.count {
		id := e.first + k
		r := x.rcpts.at(id)
		x.dequeue(id)
		if r.loc.seg != 0 {
			x.segs[r.loc.seg].dead(int64(r.loc.size))
		}
		if r.dest != 0 {
			x.forget(r.dest)
		}
	}
	x.rcpts.release(e.first, int(e.count))
	x.cache.remove(queue.ID(e.id))
	delete(x.ids, queue.ID(e.id))
	name := x.contents.unref(e.content)
	x.entries.release(i, 1)
	return name
}

// remember sets a mark; a time is only ever moved out.
func (x *index) remember(key [16]byte, until int64, seg uint32) {
	old, ok := x.marks[key]
	if ok {
		if old.until > until {
			return
		}
		x.segs[old.seg].marks--
	}
	x.segs[seg].marks++
	x.marks[key] = mark{until, seg}
}

// contents counts the references to content files.
type contents struct {
	list   []content // 0 is not used
	names  map[string]uint32
	unused []uint32
}

type content struct {
	name string
	refs int
}

func newContents() contents {
	return contents{list: make([]content, 1), names: make(map[string]uint32)}
}

func (c *contents) ref(name []byte) uint32 {
	if len(name) == 0 {
		return 0
	}
	if i, ok := c.names[string(name)]; ok {
		c.list[i].refs++
		return i
	}
	n := content{string(name), 1}
	var i uint32
	if k := len(c.unused); k > 0 {
		i = c.unused[k-1]
		c.unused = c.unused[:k-1]
		c.list[i] = n
	} else {
		i = uint32(len(c.list))
		c.list = append(c.list, n)
	}
	c.names[n.name] = i
	return i
}

// unref returns the name of a content that was given up with this.
func (c *contents) unref(i uint32) string {
	if i == 0 {
		return ""
	}
	n := &c.list[i]
	if n.refs--; n.refs > 0 {
		return ""
	}
	name := n.name
	delete(c.names, name)
	*n = content{}
	c.unused = append(c.unused, i)
	return name
}

// cache keeps entries from their commit until their first attempt, so that fresh mail is
// delivered without reading it back.
type cache struct {
	max, size int64
	m         map[queue.ID]cached
}

type cached struct {
	entry   *queue.Entry
	records []queue.Record
	size    int64
}

func newCache(max int) cache { return cache{max: int64(max), m: make(map[queue.ID]cached)} }

func (c *cache) put(id queue.ID, v cached) {
	if v.size > c.max {
		return
	}
	for victim, old := range c.m { // any one: the oldest would be claimed next
		if c.size+v.size <= c.max {
			break
		}
		c.size -= old.size
		delete(c.m, victim)
	}
	c.m[id] = v
	c.size += v.size
}

func (c *cache) remove(id queue.ID) {
	if v, ok := c.m[id]; ok {
		c.size -= v.size
		delete(c.m, id)
	}
}

// move notes that an entry, with the records of all its recipients, was copied.
func (x *index) move(i uint32, at loc, message uint32) {
	e := x.entries.at(i)
	x.segs[e.loc.seg].dead(int64(e.loc.size) + int64(e.message))
	to := x.segs[at.seg]
	to.live(int64(at.size) + int64(message))
	to.dependOn(e.loc.seg)
	for k := range e.count {
		if r := x.rcpts.at(e.first + k); r.loc.seg != 0 {
			to.dependOn(r.loc.seg)
			x.relocate(r, e, loc{})
		}
	}
	e.loc, e.message = at, message
}
