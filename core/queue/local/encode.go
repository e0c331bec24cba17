package local

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// Item types. The numbers are stored.
const (
	itemAdd     = 1
	itemMessage = 2
	itemResult  = 3
	itemMark    = 4
	itemMove    = 5
)

// Facts about a client in a message item. The numbers are stored; a reader skips those that it
// does not know.
const (
	clientAddr byte = iota + 1
	clientPort
	clientHelo
	clientHost
	clientUser
	clientProtocol
	clientTLS
	clientListener
	clientClass
	clientMechanism
	clientPTR
	clientConnections
)

const (
	itemHeader = 9
	noTime     = math.MinInt64
)

// itemVersion is the version in which items of a kind are written; older ones are read.
func itemVersion(kind byte) byte {
	if kind == itemMessage {
		return 2
	}
	return 1
}

// checksum is CRC-32C.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// encoder appends items to a buffer.
type encoder struct{ b []byte }

// begin starts an item and returns where.
func (e *encoder) begin(kind byte) int {
	at := len(e.b)
	e.b = append(e.b, kind, 0, 0, 0, 0, 0, 0, 0, 0, itemVersion(kind))
	return at
}

// end completes the item that began at at and returns its length with its header.
func (e *encoder) end(at int) uint32 {
	body := e.b[at+itemHeader:]
	binary.LittleEndian.PutUint32(e.b[at+1:], uint32(len(body)))
	binary.LittleEndian.PutUint32(e.b[at+5:], checksum(body))
	return uint32(len(e.b) - at)
}

func (e *encoder) u8(v byte)      { e.b = append(e.b, v) }
func (e *encoder) u64(v uint64)   { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) num(v int)      { e.b = binary.AppendUvarint(e.b, uint64(v)) }
func (e *encoder) str(s string)   { e.num(len(s)); e.b = append(e.b, s...) }
func (e *encoder) bytes(s []byte) { e.num(len(s)); e.b = append(e.b, s...) }

func (e *encoder) bool(v bool) {
	if v {
		e.u8(1)
	} else {
		e.u8(0)
	}
}

func (e *encoder) time(t time.Time) { e.u64(uint64(timeToInt(t))) }

// timeToInt is Unix nanoseconds, clamped to what they can express.
func timeToInt(t time.Time) int64 {
	switch {
	case t.IsZero():
		return noTime
	case t.Before(time.Unix(0, noTime+1)):
		return noTime + 1
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// add encodes an entry with the records of its recipients: an item of the given kind and
// a message item. It returns the lengths of both.
func (e *encoder) add(kind byte, entry *queue.Entry, records []queue.Record) (front, message uint32) {
	at := e.begin(kind)
	e.u64(uint64(entry.ID))
	e.str(contentName(entry.Body))
	e.num(len(records))
	var one encoder
	for i := range records {
		one.b = one.b[:0]
		one.record(&records[i])
		e.bytes(one.b)
	}
	front = e.end(at)
	at = e.begin(itemMessage)
	e.message(entry)
	return front, e.end(at)
}

// contentName is the name of the file that holds a body, or "".
func contentName(b mail.Body) string {
	if b.Path == "" {
		return ""
	}
	return filepath.Base(b.Path)
}

// record puts first what the index needs, then what only people and reports need.
func (e *encoder) record(r *queue.Record) {
	e.u8(byte(r.State))
	e.bool(r.Warned)
	e.num(max(r.Attempts, 0))
	e.time(r.Next)
	e.str(r.Destination)
	e.time(r.Expires)
	e.num(max(r.Status.Code, 0))
	for _, n := range r.Status.Enhanced {
		e.num(max(n, 0))
	}
	e.str(r.Status.Text)
	e.str(r.Status.Remote)
	e.str(r.Reason)
}

func (e *encoder) message(m *queue.Entry) {
	e.u64(uint64(m.Family))
	e.time(m.Received)
	e.u8(byte(m.Class))
	e.run(&m.Run)
	e.envelope(&m.Envelope)
	e.bytes(m.Header.Block())
	e.num(int(m.Body.Size))
	if m.Body.Path == "" {
		e.b = append(e.b, m.Body.Inline...)
	} else {
		e.num(int(m.Body.Offset))
		e.bool(m.Body.Summed)
		e.u64(uint64(m.Body.Sum))
	}
	if m.Keep != nil { // else the item ends here
		e.str(m.Keep.Folder)
		e.num(len(m.Keep.Flags))
		for _, f := range m.Keep.Flags {
			e.str(f)
		}
		if m.Keep.Create { // else the item ends here
			e.bool(true)
		}
	}
}

func (e *encoder) run(r *queue.Run) {
	e.bool(r.Complete)
	e.num(len(r.Done))
	for _, name := range r.Done {
		e.str(name)
	}
	e.num(len(r.Scores))
	for name, v := range r.Scores {
		e.str(name)
		e.u64(math.Float64bits(v))
	}
	e.num(len(r.Notes))
	for name, v := range r.Notes {
		e.str(name)
		e.str(v)
	}
}

func (e *encoder) envelope(v *mail.Envelope) {
	e.str(v.ID)
	e.u8(byte(v.Origin))
	e.path(v.ReversePath)
	e.num(len(v.Recipients))
	for i := range v.Recipients {
		r := &v.Recipients[i]
		e.path(r.Path)
		e.path(r.Original)
		e.u8(byte(r.Notify))
		e.str(r.ORCPT)
	}
	e.u8(byte(v.BodyType))
	e.bool(v.UTF8)
	e.bool(v.RequireTLS)
	e.u8(byte(v.Return))
	e.str(v.EnvelopeID)
	e.client(&v.Client)
}

func (e *encoder) path(p mail.Path) {
	e.str(p.Local)
	e.str(p.Domain.String())
}

// client writes what is known of a client and nothing else: how many facts, which fits into one
// byte, and each as its number and its text.
func (e *encoder) client(c *mail.Client) {
	count := len(e.b)
	e.u8(0)
	if c.Addr.IsValid() {
		var room [24]byte
		addr, _ := c.Addr.AppendBinary(room[:0]) // never fails
		e.u8(clientAddr)
		e.bytes(addr)
		e.b[count]++
	}
	for _, f := range [...]struct {
		tag  byte
		text string
	}{
		{clientHelo, c.Helo}, {clientHost, c.Host}, {clientUser, c.User}, {clientProtocol, c.Protocol}, {clientTLS, c.TLS},
		{clientListener, c.Listener}, {clientMechanism, c.Mechanism}, {clientPTR, c.PTR},
	} {
		if f.text != "" {
			e.u8(f.tag)
			e.str(f.text)
			e.b[count]++
		}
	}
	for _, f := range [...]struct {
		tag byte
		n   int
	}{{clientPort, int(c.Port)}, {clientClass, int(c.Class)}, {clientConnections, c.Connections}} {
		if f.n > 0 {
			var room [binary.MaxVarintLen64]byte
			e.u8(f.tag)
			e.bytes(binary.AppendUvarint(room[:0], uint64(f.n)))
			e.b[count]++
		}
	}
}

func (e *encoder) result(r *queue.Result) uint32 {
	at := e.begin(itemResult)
	e.u64(uint64(r.ID))
	e.num(r.Recipient)
	e.record(&r.Record)
	return e.end(at)
}

func (e *encoder) mark(key [16]byte, until int64) {
	at := e.begin(itemMark)
	e.b = append(e.b, key[:]...)
	e.u64(uint64(until))
	e.end(at)
}

// checkAdd refuses what the log could not give back as it was.
func checkAdd(a *queue.Add) error {
	e := a.Entry
	switch {
	case e == nil:
		return fmt.Errorf("queue: entry is missing")
	case e.ID == 0:
		return fmt.Errorf("queue: entry has no id")
	case int(e.Class) >= queue.Classes:
		return fmt.Errorf("queue: %s is of the unknown class %d", e.ID, e.Class)
	case len(a.Records) == 0 || len(a.Records) != len(e.Envelope.Recipients):
		return fmt.Errorf("queue: %s has %d recipients and %d records", e.ID, len(e.Envelope.Recipients), len(a.Records))
	case len(a.Records) > maxRecipients:
		return fmt.Errorf("queue: %s has more than %d recipients", e.ID, maxRecipients)
	case e.Body.Path == "" && e.Body.Size != int64(len(e.Body.Inline)):
		return fmt.Errorf("queue: %s has a body of %d bytes that says %d", e.ID, len(e.Body.Inline), e.Body.Size)
	case e.Body.Size < 0 || e.Body.Offset < 0:
		return fmt.Errorf("queue: %s has a body of negative size", e.ID)
	}
	for i := range a.Records {
		if a.Records[i].State < queue.Pending || a.Records[i].State > queue.Replaced {
			return fmt.Errorf("queue: %s has a record without a state", e.ID)
		}
	}
	return nil
}
