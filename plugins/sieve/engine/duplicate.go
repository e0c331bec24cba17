package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// duplicateTest has "duplicate" (RFC 7352).
func duplicateTest(name string) (testSpec, bool) {
	if name != "duplicate" {
		return testSpec{}, false
	}
	return testSpec{signature{ext: "duplicate", tags: []tagSpec{
		{name: "handle", value: str}, {name: "header", value: str, group: "id"}, {name: "uniqueid", value: str, group: "id"},
		{name: "seconds", value: num}, {name: "last"},
	}}, buildDuplicate}, true
}

// The times for which duplicates are remembered.
const (
	duplicatePeriod    = 7 * 24 * time.Hour
	duplicatePeriodMax = 30 * 24 * time.Hour
)

func buildDuplicate(c *compiler, b *bound) (cond, *Error) {
	handle, err := c.optional(b, "handle", "")
	if err != nil {
		return nil, err
	}
	header, err := c.optional(b, "header", "Message-ID")
	if err != nil {
		return nil, err
	}
	id, err := c.optional(b, "uniqueid", "")
	if err != nil {
		return nil, err
	}
	period := duplicatePeriod
	if a, ok := b.tags["seconds"]; ok {
		period = time.Duration(min(a.Number, int64(duplicatePeriodMax/time.Second))) * time.Second
	}
	return condFunc(func(x *run) (bool, error) {
		var unique string
		if b.has("uniqueid") {
			unique = x.text(id)
		} else if fields := x.msg.all(x.text(header)); len(fields) > 0 {
			unique = x.msg.value(fields[0])
		}
		if unique == "" {
			return false, nil
		}
		return x.duplicate(memoryKey("duplicate", x.text(handle), unique), period, b.has("last"))
	}), nil
}

// duplicate asks for a key and remembers it, for later runs only.
func (x *run) duplicate(key string, period time.Duration, last bool) (bool, error) {
	if seen, ok := x.duplicates[key]; ok {
		return seen, nil
	}
	seen, err := x.remembered(key)
	if err != nil {
		return false, err
	}
	if x.duplicates == nil {
		x.duplicates = make(map[string]bool)
	}
	x.duplicates[key] = seen
	if !seen || last {
		x.result.Remember = append(x.result.Remember, Mark{key, period})
	}
	return seen, nil
}

func (x *run) remembered(key string) (bool, error) {
	if x.env.Remembered == nil {
		return false, nil
	}
	x.work += 64 << 10 // somebody else is asked
	return x.env.Remembered(x.ctx, key)
}

// memoryKey names something to remember: short, whatever a message says.
func memoryKey(kind string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return kind + ":" + hex.EncodeToString(sum[:16])
}

// optional compiles the value of a tag, or what stands for it.
func (c *compiler) optional(b *bound, tag, otherwise string) (text, *Error) {
	if a, ok := b.tags[tag]; ok {
		return c.text(a.Strings[0])
	}
	return text{lit: otherwise, line: b.Line}, nil
}
