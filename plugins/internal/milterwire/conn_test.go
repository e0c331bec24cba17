package milterwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-milter"
)

// scripted is a connection whose other end has said everything already.
type scripted struct {
	net.Conn
	r       io.Reader
	written bytes.Buffer
	closed  bool
}

func (s *scripted) Read(p []byte) (int, error)         { return s.r.Read(p) }
func (s *scripted) Write(p []byte) (int, error)        { return s.written.Write(p) }
func (s *scripted) SetReadDeadline(time.Time) error    { return nil }
func (s *scripted) SetWriteDeadline(t time.Time) error { return nil }
func (s *scripted) Close() error                       { s.closed = true; return nil }

type dialer struct{ net.Conn }

func (d dialer) Dial(string, string) (net.Conn, error) { return d.Conn, nil }

func optneg(version, actions, protocol uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, version)
	b = binary.BigEndian.AppendUint32(b, actions)
	return frame('O', binary.BigEndian.AppendUint32(b, protocol))
}

// negotiated is a session with a milter that says the rest after its negotiation.
func negotiated(answer []byte, rest io.Reader) (*milter.ClientSession, *Conn, *scripted, error) {
	s := &scripted{r: io.MultiReader(bytes.NewReader(answer), rest)}
	c := New(s)
	c.Begin(Negotiation, time.Second)
	session, err := milter.NewClientWithOptions("", "", milter.ClientOptions{Dialer: dialer{c}, ActionMask: Actions, ProtocolMask: Protocol}).Session()
	return session, c, s, err
}

// The client talks to milters of every version, and offers everything but refused recipients.
func TestVersions(t *testing.T) {
	for v := range uint32(9) {
		session, c, s, err := negotiated(optneg(v, 0x1ff, 0x800|0x100000), strings.NewReader(""))
		if ok := v >= 2 && v <= 6; ok != (err == nil) {
			t.Errorf("version %d: %v", v, err)
		}
		if err == nil && (c.Version != v || session.ProtocolOpts != 0x100000 || session.ActionOpts != 0x1ff) {
			t.Errorf("version %d: %d, %#x", v, c.Version, session.ProtocolOpts)
		}
		if got := s.written.Bytes(); !bytes.Equal(got, optneg(6, 0x1ff, 0x1ff7ff)) {
			t.Errorf("offered %x", got)
		}
	}
}

// A new body is passed on and not collected, and what is announced takes no memory.
func TestMemory(t *testing.T) {
	const n = 3000
	piece := frame('b', bytes.Repeat([]byte("x"), 60000))
	pr, pw := io.Pipe()
	go func() {
		for range n {
			pw.Write(piece)
		}
		pw.Write(frame('c', nil))
	}()
	session, c, _, err := negotiated(optneg(6, 0x1ff, 0), pr)
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	c.Body = func(p []byte) error { got += len(p); return nil }
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c.Begin(End, time.Second)
	changes, act, err := session.End()
	runtime.ReadMemStats(&after)
	if err != nil || act.Code != milter.ActContinue || len(changes) != 0 || got != n*60000 || !c.Replaced {
		t.Errorf("%v, %v, %d bytes", err, act, got)
	}
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 32<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
	liar := binary.BigEndian.AppendUint32(nil, MaxPacket)
	runtime.ReadMemStats(&before)
	for range 200 {
		session, c, _, err := negotiated(optneg(6, 0, 0), bytes.NewReader(liar))
		if err != nil {
			t.Fatal(err)
		}
		c.Begin(Plain, time.Second)
		if _, err := session.Helo("x"); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
	}
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) / 200; took > 200<<10 {
		t.Errorf("a liar takes %d KB", took>>10)
	}
}

// A milter that reads slowly, but does, is given its time with each piece, and one that stops
// no more than that.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := New(ours)
		c.Begin(Content, time.Second)
		piece := make([]byte, 64<<10)
		go func() {
			for range 20 {
				time.Sleep(time.Second - 1)
				io.ReadFull(theirs, piece)
			}
		}()
		for range 20 {
			if _, err := c.Write(frame('B', piece[5:])); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Write(frame('B', piece)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a milter that does not read any more: %v", err)
		}
	})
}

// Close says goodbye, Abandon says nothing.
func TestClose(t *testing.T) {
	session, _, s, err := negotiated(optneg(6, 0, 0), strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	s.written.Reset()
	if err := session.Close(); err != nil || !s.closed || !bytes.HasSuffix(s.written.Bytes(), frame('Q', nil)) {
		t.Errorf("%v, %x", err, s.written.Bytes())
	}
	session, c, s, err := negotiated(optneg(6, 0, 0), strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	s.written.Reset()
	session.Macros(milter.CodeConn, "j", "x")
	if c.Abandon(); !s.closed || s.written.Len() != 0 {
		t.Errorf("%x", s.written.Bytes())
	}
}

// FuzzAnswers: whatever a milter sends, a dialogue ends, with an error or a known answer.
func FuzzAnswers(f *testing.F) {
	join := func(ps ...[]byte) []byte { return bytes.Join(ps, nil) }
	goOn := frame('c', nil)
	f.Add(join(goOn, goOn, goOn, frame('h', []byte("X\x00y\x00")), frame('b', []byte("new")), frame('a', nil)))
	f.Add(join(goOn, frame('y', []byte("550 5.7.1 x\x00"))))
	f.Add(join(goOn, goOn, frame('s', nil), frame('2', []byte("<a@b>\x00NOTIFY=NEVER\x00")), frame('q', []byte("x\x00")), frame('p', nil), frame('4', nil)))
	f.Add(join(goOn, goOn, goOn, frame('m', []byte("\x00\x00\x00\x01X\x00y\x00")), frame('e', []byte("<>\x00\x00")), frame('-', []byte("\x00")), frame('r', nil)))
	f.Fuzz(func(t *testing.T, answers []byte) {
		session, c, _, err := negotiated(optneg(6, 0x1ff, 0x400), bytes.NewReader(answers))
		if err != nil {
			t.Fatal(err)
		}
		c.Body = func([]byte) error { return nil }
		for _, ask := range []func() (*milter.Action, error){
			func() (*milter.Action, error) { return session.Helo("x") },
			func() (*milter.Action, error) { return c.Data(session.ProtocolOpts) },
			func() (*milter.Action, error) {
				c.Begin(Content, time.Second)
				return session.BodyChunk([]byte("x"))
			},
			func() (*milter.Action, error) {
				c.Begin(End, time.Second)
				changes, act, err := session.End()
				if len(changes) > MaxChanges {
					t.Errorf("%d changes", len(changes))
				}
				return act, err
			},
		} {
			c.Begin(Plain, time.Second)
			act, err := ask()
			if err != nil || act.Code != milter.ActContinue {
				if err == nil && !strings.ContainsRune("ardty", rune(act.Code)) {
					t.Errorf("answer %q", act.Code)
				}
				return
			}
		}
	})
}

// FuzzNegotiation: whatever a milter says first.
func FuzzNegotiation(f *testing.F) {
	f.Add(optneg(6, 0x1ff, 0)[5:])
	f.Add(append(optneg(6, 0x100, 0)[5:], "\x00\x00\x00\x00i j\x00\x00\x00\x00\x06\x00"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		session, c, _, err := negotiated(frame('O', data), strings.NewReader(""))
		if err == nil && (session.ActionOpts&^Actions != 0 || session.ProtocolOpts&^Protocol != 0 || c.Version < 2) {
			t.Errorf("%+v", session)
		}
	})
}
