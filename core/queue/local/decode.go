package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

var errFormat = errors.New("malformed item")

// decoder reads what encoder wrote. After the first error everything is zero.
type decoder struct {
	b       []byte
	version byte // of the item
	err     error
}

// item is one item of a payload. Its body is not yet checked.
type item struct {
	kind byte
	off  int // in the payload
	body []byte
	sum  uint32
}

func (i *item) size() uint32 { return uint32(itemHeader + len(i.body)) }

// check verifies the checksum and the version of the item and returns a decoder for it.
func (i *item) check() *decoder {
	d := &decoder{b: i.body}
	if checksum(i.body) != i.sum {
		d.err = errors.New("item has a wrong checksum")
		return d
	}
	d.begin(i.kind)
	return d
}

// begin reads the version of an item.
func (d *decoder) begin(kind byte) {
	d.version = d.u8()
	if d.err == nil && (d.version == 0 || d.version > itemVersion(kind)) {
		d.err = fmt.Errorf("item has the unknown version %d", d.version)
	}
}

// nextItem cuts the item at off from a payload.
func nextItem(payload []byte, off int) (item, error) {
	b := payload[off:]
	if len(b) < itemHeader {
		return item{}, errFormat
	}
	n := int64(binary.LittleEndian.Uint32(b[1:]))
	if n > int64(len(b)-itemHeader) {
		return item{}, errFormat
	}
	return item{kind: b[0], off: off, sum: binary.LittleEndian.Uint32(b[5:]), body: b[itemHeader : itemHeader+n]}, nil
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errFormat
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail()
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u8() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if p := d.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) num() int {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > math.MaxInt64 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

// count is a number of things that take at least min bytes each.
func (d *decoder) count(min int) int {
	n := d.num()
	if n > len(d.b)/min {
		d.fail()
		return 0
	}
	return n
}

func (d *decoder) bytes() []byte { return d.take(d.num()) }
func (d *decoder) str() string   { return string(d.bytes()) }

func (d *decoder) bool() bool {
	v := d.u8()
	if v > 1 {
		d.fail()
	}
	return v == 1
}

func (d *decoder) time() time.Time {
	v := int64(d.u64())
	if v == noTime || d.err != nil {
		return time.Time{}
	}
	return time.Unix(0, v).UTC()
}

func (d *decoder) class() queue.Class {
	v := d.u8()
	if int(v) >= queue.Classes {
		d.fail()
	}
	return queue.Class(v)
}

// brief is what the index keeps of a record.
type brief struct {
	state    queue.State
	attempts int
	next     int64 // Unix nanoseconds or noTime
	dest     []byte
}

func (d *decoder) brief() brief {
	r := brief{state: queue.State(d.u8())}
	d.bool()
	r.attempts = d.num()
	r.next = int64(d.u64())
	r.dest = d.bytes()
	if r.state < queue.Pending || r.state > queue.Replaced {
		d.fail()
	}
	return r
}

func (d *decoder) record() queue.Record {
	r := queue.Record{State: queue.State(d.u8()), Warned: d.bool(), Attempts: d.num(), Next: d.time(), Destination: d.str()}
	r.Expires = d.time()
	r.Status.Code = d.num()
	for i := range r.Status.Enhanced {
		r.Status.Enhanced[i] = d.num()
	}
	r.Status.Text, r.Status.Remote, r.Reason = d.str(), d.str(), d.str()
	if r.State < queue.Pending || r.State > queue.Replaced {
		d.fail()
	}
	return r
}

// front is the first half of an add or move item.
type front struct {
	id      queue.ID
	content []byte
	records int
}

// front leaves d at the first record.
func (d *decoder) front() front {
	f := front{id: queue.ID(d.u64()), content: d.bytes()}
	f.records = d.count(1)
	if f.records == 0 || f.records > maxRecipients {
		d.fail()
	}
	return f
}

// records reads the records of an add or move item.
func (d *decoder) records(n int) []queue.Record {
	out := make([]queue.Record, 0, n)
	for range n {
		one := decoder{b: d.bytes()}
		out = append(out, one.record())
		if one.err != nil || len(one.b) != 0 {
			d.fail()
		}
		if d.err != nil {
			return nil
		}
	}
	return out
}

// message reads a message item. Header and inline body share memory with it.
func (d *decoder) message(id queue.ID, path func(name string) string, content string) *queue.Entry {
	m := &queue.Entry{ID: id, Family: queue.ID(d.u64()), Received: d.time(), Class: d.class()}
	d.run(&m.Run)
	d.envelope(&m.Envelope)
	m.Header = mail.NewHeader(d.bytes())
	m.Body.Size = int64(d.num())
	if content == "" {
		m.Body.Inline = d.take(int(m.Body.Size))
	} else {
		m.Body.Path = path(content)
		m.Body.Offset = int64(d.num())
		m.Body.Summed = d.bool()
		m.Body.Sum = uint32(d.u64())
	}
	if len(d.b) != 0 {
		m.Keep = &queue.Keep{Folder: d.str()}
		for range d.count(1) {
			m.Keep.Flags = append(m.Keep.Flags, d.str())
		}
		if len(d.b) != 0 {
			m.Keep.Create = d.bool()
		}
	}
	if len(d.b) != 0 {
		d.fail()
	}
	return m
}

func (d *decoder) run(r *queue.Run) {
	r.Complete = d.bool()
	if n := d.count(1); n > 0 {
		r.Done = make([]string, 0, n)
		for range n {
			r.Done = append(r.Done, d.str())
		}
	}
	if n := d.count(9); n > 0 {
		r.Scores = make(map[string]float64, n)
		for range n {
			name := d.str()
			r.Scores[name] = math.Float64frombits(d.u64())
		}
	}
	if n := d.count(2); n > 0 {
		r.Notes = make(map[string]string, n)
		for range n {
			name := d.str()
			r.Notes[name] = d.str()
		}
	}
}

func (d *decoder) envelope(v *mail.Envelope) {
	v.ID = d.str()
	v.Origin = mail.Origin(d.u8())
	v.ReversePath = d.path()
	if n := d.count(6); n > 0 {
		v.Recipients = make([]mail.Recipient, n)
		for i := range v.Recipients {
			v.Recipients[i] = mail.Recipient{Path: d.path(), Original: d.path(), Notify: mail.Notify(d.u8()), ORCPT: d.str()}
		}
	}
	v.BodyType = mail.BodyType(d.u8())
	v.UTF8 = d.bool()
	v.RequireTLS = d.bool()
	v.Return = mail.Return(d.u8())
	v.EnvelopeID = d.str()
	d.client(&v.Client)
}

func (d *decoder) path() mail.Path {
	p := mail.Path{Local: d.str()}
	if name := d.str(); name != "" {
		dom, err := mail.ParseDomain(name)
		if err != nil {
			d.fail()
		}
		p.Domain = dom
	}
	return p
}

func (d *decoder) client(c *mail.Client) {
	if d.version == 1 {
		d.client1(c)
		return
	}
	for range d.count(2) {
		tag, fact := d.u8(), decoder{b: d.bytes()}
		switch tag {
		case clientAddr:
			c.Addr = fact.addr()
		case clientPort:
			c.Port = uint16(fact.upTo(math.MaxUint16))
		case clientHelo:
			c.Helo = fact.rest()
		case clientHost:
			c.Host = fact.rest()
		case clientUser:
			c.User = fact.rest()
		case clientProtocol:
			c.Protocol = fact.rest()
		case clientTLS:
			c.TLS = fact.rest()
		case clientListener:
			c.Listener = fact.rest()
		case clientClass:
			c.Class = mail.Class(fact.upTo(math.MaxUint8))
		case clientMechanism:
			c.Mechanism = fact.rest()
		case clientPTR:
			c.PTR = fact.rest()
		case clientConnections:
			c.Connections = fact.upTo(math.MaxInt32)
		default:
			fact.b = nil
		}
		if fact.err != nil || len(fact.b) != 0 {
			d.fail()
		}
	}
}

// rest is all that is left.
func (d *decoder) rest() string { return string(d.take(len(d.b))) }

func (d *decoder) upTo(max int) int {
	n := d.num()
	if n > max {
		d.fail()
	}
	return n
}

func (d *decoder) addr() (a netip.Addr) {
	if a.UnmarshalBinary(d.take(len(d.b))) != nil {
		d.fail()
	}
	return a
}

// client1 reads the client of an item of version 1: each fact in its place.
func (d *decoder) client1(c *mail.Client) {
	addr := decoder{b: d.bytes()}
	if c.Addr = addr.addr(); addr.err != nil {
		d.fail()
	}
	c.Port = uint16(d.upTo(math.MaxUint16))
	for _, s := range [...]*string{&c.Helo, &c.Host, &c.User, &c.Protocol, &c.TLS, &c.Listener} {
		*s = d.str()
	}
	c.Class = mail.Class(d.u8())
}
