package queue

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"
)

// ID names an entry: milliseconds since 2020 in the upper 42 bits, a counter that began
// at random in the lower 22. IDs of one process grow and never repeat. Written as 13
// characters of base32 (Crockford's alphabet, lower case), they sort by age.
type ID uint64

const (
	idEpoch    = 1577836800000 // 2020-01-01 in Unix milliseconds
	idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

// IDs hands out new IDs. It is safe for concurrent use.
type IDs struct{ last atomic.Uint64 }

// New returns an ID that this process has not used, for the time now.
func (g *IDs) New(now time.Time) ID {
	for {
		last := g.last.Load()
		next := uint64(max(now.UnixMilli()-idEpoch, 0)) << 22
		if next <= last {
			next = last + 1
		} else {
			next |= uint64(random()) & (1<<20 - 1)
		}
		if g.last.CompareAndSwap(last, next) {
			return ID(next)
		}
	}
}

func random() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// Time is when the ID was made, to the millisecond.
func (id ID) Time() time.Time { return time.UnixMilli(int64(id>>22) + idEpoch) }

// String is the written form.
func (id ID) String() string {
	var b [13]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = idAlphabet[id&31]
		id >>= 5
	}
	return string(b[:])
}

// notID says what one looks like.
func notID(s string) error {
	return fmt.Errorf("%q is not a queue id: that is 13 letters and digits, as in 0c1f3k9w2m4xq", s)
}

// ParseID parses the written form.
func ParseID(s string) (ID, error) {
	if len(s) != 13 {
		return 0, notID(s)
	}
	var id ID
	for i := 0; i < len(s); i++ {
		k := -1
		for j := 0; j < len(idAlphabet); j++ {
			if idAlphabet[j] == s[i] {
				k = j
			}
		}
		if k < 0 || i == 0 && k > 15 {
			return 0, notID(s)
		}
		id = id<<5 | ID(k)
	}
	return id, nil
}

// MarshalText gives the written form.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText parses the written form.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}
