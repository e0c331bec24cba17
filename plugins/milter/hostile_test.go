package milter

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/plugins/internal/milterwire"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Short times are for what has to be cut off: whoever answers has the usual ones.
const (
	short = "[timeouts]\nconnect=\"100ms\"\ncommand=\"100ms\"\nbody=\"100ms\"\nend=\"100ms\"\n"
	body  = "[timeouts]\nbody=\"100ms\"\n"
	end   = "[timeouts]\nend=\"100ms\"\n"
)

// unscanned asks, and wants "could not look" with that reason.
func unscanned(t *testing.T, name string, p *Plugin, m *mail.Message, reason string) {
	t.Helper()
	v := verdict(t, p, m)
	if v.Action != sdk.ActionUnscanned || !strings.Contains(v.Reason, reason) || len(v.Edits)+len(v.PerRecipient) != 0 {
		t.Errorf("%s: %+v, want %q", name, v.Outcome, reason)
	}
}

// A milter that is not there, hangs or hangs up at any step is no answer.
func TestNoAnswer(t *testing.T) {
	m := message(small, "bob@example.org")
	unscanned(t, "nobody there", configured(t, filepath.Join(t.TempDir(), "s"), ""), m, "not reachable")
	for _, code := range []byte("OCHMRTLNBE") {
		f := newFake(t, agreeable(0, 0, map[byte][]byte{code: nil}))
		unscanned(t, "hangs at "+string(code), configured(t, f.addr, short), m, "timed out")
		f = newFake(t, agreeable(0, 0, map[byte][]byte{code: []byte(hangUp)}))
		unscanned(t, "hangs up at "+string(code), configured(t, f.addr, ""), m, "failed")
		f = newFake(t, agreeable(0, 0, map[byte][]byte{code: {0, 0, 0, 9, 'c', 'u', 't'}}))
		unscanned(t, "stops within a packet at "+string(code), configured(t, f.addr, short), m, "timed out")
	}
	f := newFake(t, agreeable(0, 0, map[byte][]byte{'E': packets(packet('h', "X\x00y\x00"), packet('r', "")[:4])}))
	unscanned(t, "changes without an answer", configured(t, f.addr, end), m, "timed out")
	f = newFake(t, agreeable(0, 0, map[byte][]byte{'E': packets(packet('b', "half"), []byte{0, 0})}))
	unscanned(t, "half a body", configured(t, f.addr, end), m, "timed out")
}

// A milter that does not read cannot hold a message for longer than its time.
func TestNotReading(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			c.Write(optneg(6, 0, 0xff380)) // and wants no answers to be waited for
		}
	}()
	m := message("Subject: x\r\n\r\n"+strings.Repeat("0123456789abcde\n", 1<<18), "bob@example.org")
	unscanned(t, "does not read", configured(t, l.Addr().String(), body), m, "timed out at body")
}

// What is against the protocol is the milter's fault and never a verdict.
func TestGarbage(t *testing.T) {
	m := message(small, "bob@example.org")
	giant := binary.BigEndian.AppendUint32(nil, milterwire.MaxPacket+1)
	atEnd := func(ps ...[]byte) map[byte][]byte {
		return map[byte][]byte{'E': packets(append(ps, packet('a', ""))...)}
	}
	at := func(code byte, answer []byte) map[byte][]byte { return map[byte][]byte{code: answer} }
	for name, other := range map[string]map[byte][]byte{
		"HTTP":                    at('O', []byte("HTTP/1.1 400 Bad Request\r\n\r\n")),
		"clamd":                   at('O', []byte("UNKNOWN COMMAND\n")),
		"no negotiation":          at('O', packet('c', "")),
		"short negotiation":       at('O', packet('O', "\x00\x00\x00\x06")),
		"version 1":               at('O', optneg(1, 0, 0)),
		"version 7":               at('O', optneg(7, 0, 0)),
		"unknown action":          at('O', optneg(6, 0x200, 0)),
		"unknown option":          at('O', optneg(6, 0, 0x10000000)),
		"macros cut off":          at('O', optneg(6, 0, 0, 0, 0, 0, 1)),
		"macros without end":      at('O', optneg(6, 0, 0, 0, 0, 0, 1, 'i')),
		"macros of no stage":      at('O', optneg(6, 0, 0, 0, 0, 0, 9, 'i', 0)),
		"empty packet":            at('C', []byte{0, 0, 0, 0}),
		"giant packet":            at('C', append(giant, 'c')),
		"4 GB":                    at('E', []byte{0xff, 0xff, 0xff, 0xff, 'c'}),
		"unknown answer":          at('M', packet('Z', "")),
		"negotiation again":       at('M', optneg(6, 0, 0)),
		"change before the end":   at('N', packet('h', "X\x00y\x00")),
		"body before the end":     at('B', packet('b', "new")),
		"skip elsewhere":          at('L', packet('s', "")),
		"skip at the end":         at('E', packet('s', "")),
		"reply 250":               at('R', packet('y', "250 2.0.0 Ok\x00")),
		"reply 354":               at('T', packet('y', "354 go\x00")),
		"reply without text":      at('E', packet('y', "550\x00")),
		"reply of words":          at('E', packet('y', "five fifty\x00")),
		"reply -50":               at('E', packet('y', "-50 x\x00")),
		"two answers":             at('M', packets(packet('c', ""), packet('c', ""))),
		"unknown change":          atEnd(packet('Z', "x\x00")),
		"field without value":     atEnd(packet('h', "X\x00")),
		"field without end":       atEnd(packet('h', "X\x00y")),
		"change without index":    atEnd(packet('m', "\x00\x00")),
		"field with no name":      atEnd(packet('h', "\x00y\x00")),
		"field with a bad name":   atEnd(packet('h', "X: y\r\nZ\x00y\x00")),
		"field with a long name":  atEnd(packet('h', strings.Repeat("x", 300)+"\x00y\x00")),
		"field too large":         atEnd(packet('h', "X\x00"+strings.Repeat("x", 70000)+"\x00")),
		"index below zero":        atEnd(packet('m', "\xff\xff\xff\xffX\x00y\x00")),
		"bad recipient":           atEnd(packet('+', "<no at>\x00")),
		"null recipient":          atEnd(packet('+', "<>\x00")),
		"recipient injection":     atEnd(packet('+', "<a@b.test>\r\nRCPT TO:<c@d.test>\x00")),
		"recipient without end":   atEnd(packet('+', "a@b.test")),
		"bad sender":              atEnd(packet('e', "x\x00")),
		"NUL in a body":           atEnd(packet('b', "a\x00b")),
		"too many changes":        atEnd(bytes.Repeat(packet('h', "X\x00y\x00"), milterwire.MaxChanges+1)),
		"too much in its changes": atEnd(bytes.Repeat(packet('h', "X\x00"+strings.Repeat("y ", 30000)+"\x00"), 100)),
	} {
		f := newFake(t, agreeable(0x1ff, 0x400, other))
		unscanned(t, name, configured(t, f.addr, ""), m, "broke the protocol")
	}
	f := newFake(t, agreeable(0x1ff, 0, atEnd(bytes.Repeat(packet('h', "X\x00y\x00"), milterwire.MaxChanges))))
	if v := verdict(t, configured(t, f.addr, ""), m); len(v.Edits) != milterwire.MaxChanges {
		t.Errorf("as many changes as are allowed: %+v", v.Outcome)
	}
}

// A field that is too large for milters is not cut, and the message not passed as seen.
func TestLargeField(t *testing.T) {
	for n, ok := range map[int]bool{milterwire.MaxField - 4: true, milterwire.MaxField - 3: true, milterwire.MaxField - 2: false} {
		f := newFake(t, agreeable(0, 0x100000, nil))
		p := configured(t, f.addr, "")
		m := message("X: "+strings.Repeat("x", n-1)+"\r\n\r\n", "bob@example.org") // with the name and two NULs n+3
		if !ok {
			unscanned(t, "large", p, m, "header field too large")
		} else if v := verdict(t, p, m); v.Action != sdk.ActionContinue {
			t.Errorf("%d: %+v", n, v)
		}
	}
}

// Progress gives no more time than until there is no more of it, and none beyond the call's.
func TestProgress(t *testing.T) {
	m := message(small, "bob@example.org")
	f := newFake(t, agreeable(0, 0, map[byte][]byte{'E': bytes.Repeat(packet('p', ""), 100000)}))
	unscanned(t, "progress, then nothing", configured(t, f.addr, end), m, "timed out")
	f = newFake(t, agreeable(0, 0, map[byte][]byte{'E': []byte(forEver)}))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if v, err := configured(t, f.addr, "").Filter(ctx, m); err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("progress without end: %+v, %v", v, err)
	}
}

// Nothing stays open, however a dialogue ends: the fake waits for the end of its connections.
func TestNothingStaysOpen(t *testing.T) {
	m := message(small, "bob@example.org")
	for _, answer := range [][]byte{packet('c', ""), packet('Z', ""), optneg(1, 0, 0), packet('r', "")} {
		for _, code := range []byte("OE") {
			f := newFake(t, agreeable(0, 0, map[byte][]byte{code: answer}))
			p := configured(t, f.addr, short)
			verdict(t, p, m)
			f.ended(1)
		}
	}
}
