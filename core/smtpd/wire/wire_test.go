package wire

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var buffers Buffers

// pair is a connection with a client that says input, all of it at once or as the connection
// takes it.
func pair(t *testing.T, input string) (*Conn, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	c := New(ours, Timeouts{Session: time.Minute, Write: 10 * time.Second}, &buffers)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(theirs, input)
	}()
	t.Cleanup(func() {
		c.Close(0)
		theirs.Close()
		<-sent
	})
	return c, theirs
}

func limits() *Limits {
	return &Limits{Size: 1000, Line: 100, Refused: 2000, Pause: 10 * time.Second, Grace: 10 * time.Second, Rate: 1000}
}

func TestCommand(t *testing.T) {
	long := strings.Repeat("x", MaxCommand-2)
	auth := "auth plain " + strings.Repeat("x", MaxAuth-13)
	for _, c := range []struct {
		in, want string
		err      error
	}{
		{"NOOP\r\nx", "NOOP", nil},
		{"\r\n", "", nil},
		{"a\rb\r\n", "a\rb", nil}, // not the end of a line: for the parser to refuse
		{"NOOP\n", "", ErrCommandLF},
		{"\n", "", ErrCommandLF},
		{"NOOP\nNOOP\r\n", "", ErrCommandLF},
		{long + "\r\n", long, nil},
		{long + "x\r\n", "", ErrLongCommand},
		{auth + "\r\n", auth, nil},
		{auth + "x\r\n", "", ErrLongCommand},
		{"\x16\x03\x01", "", ErrBinary},
		{"\x00NOOP", "", ErrBinary},
	} {
		conn, _ := pair(t, c.in)
		line, err := conn.Command(10*time.Second, true)
		if string(line) != c.want || err != c.err {
			t.Errorf("%.20q: %.20q, %v", c.in, line, err)
		}
	}
	conn, _ := pair(t, "")
	if _, err := conn.Command(time.Nanosecond, true); err != ErrSlow {
		t.Error(err)
	}
	conn.Drain()
	if _, err := conn.Command(10*time.Second, true); err != ErrDraining {
		t.Error(err)
	}
}

func TestReply(t *testing.T) {
	conn, client := pair(t, "")
	conn.Reply("250 ü\r\n250 \x1b")
	conn.Reply(strings.Repeat("2", 600))
	done := make(chan error, 1)
	go func() { done <- conn.Flush() }()
	r := bufio.NewReader(client)
	for _, want := range []string{"250 ????250 ?\r\n", strings.Repeat("2", 510) + "\r\n"} {
		if got, err := r.ReadString('\n'); err != nil || got != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestData(t *testing.T) {
	line := strings.Repeat("x", 98) + "\r\n" // of 100 octets
	for _, c := range []struct {
		in, want string
		err      error
	}{
		{"a\r\n..b\r\n.\r\nNOOP\r\n", "a\r\n.b\r\n", ErrEnd},
		{".\r\nNOOP\r\n", "", ErrEnd},
		{line + ".\r\nNOOP\r\n", line, ErrEnd},
		{"x" + line + ".\r\nNOOP\r\n", "", ErrDataLine},
		{strings.Repeat(line, 10) + ".\r\nNOOP\r\n", strings.Repeat(line, 10), ErrEnd},
		{strings.Repeat(line, 11) + ".\r\nNOOP\r\n", "", ErrTooLarge},
		{"a\n.\nNOOP\r\n", "", ErrBareLF},
		{"a\r.\rNOOP\r\n", "", ErrBareCR},
		{"a\x00\r\n.\r\nNOOP\r\n", "", ErrNUL},
	} {
		conn, _ := pair(t, c.in)
		b := conn.Data(limits())
		ended := 0
		b.OnEnd(func() { ended++ })
		got, err := io.ReadAll(b)
		if b.Err() != c.err || c.err == ErrEnd && (string(got) != c.want || err != nil || ended != 1) || c.err != ErrEnd && (err != c.err || ended != 0) {
			t.Errorf("%.20q: %.20q, %v, %v", c.in, got, err, b.Err())
		}
		// What follows is a command, or the connection is of no use any more.
		if err := b.Skip(); err != nil {
			if err != c.err {
				t.Errorf("%.20q: %v", c.in, err)
			}
			continue
		}
		b.Release()
		if line, err := conn.Command(10*time.Second, true); string(line) != "NOOP" || err != nil {
			t.Errorf("%.20q: then %q, %v", c.in, line, err)
		}
	}
}

// TestRefusedEarly: what nobody read of a message is not a command.
func TestRefusedEarly(t *testing.T) {
	conn, _ := pair(t, "MAIL FROM:<>\r\n.\r\nNOOP\r\n")
	if err := conn.Data(limits()).Skip(); err != nil {
		t.Fatal(err)
	}
	if line, err := conn.Command(10*time.Second, true); string(line) != "NOOP" || err != nil {
		t.Errorf("%q, %v", line, err)
	}
	conn, _ = pair(t, strings.Repeat("x\r\n", 2000))
	if err := conn.Data(limits()).Skip(); err != ErrEndless {
		t.Error(err)
	}
	conn, _ = pair(t, "")
	if err := conn.Skip(2001, limits()); err != ErrEndless {
		t.Error(err)
	}
}

func TestChunks(t *testing.T) {
	type chunk struct {
		size int64
		last bool
	}
	for _, c := range []struct {
		in     string
		chunks []chunk
		want   string
		err    error
	}{
		{"a\r\n.\r\n", []chunk{{6, true}}, "a\r\n.\r\n", ErrEnd},
		{"a\r\nb", []chunk{{2, false}, {0, false}, {2, true}}, "a\r\nb\r\n", ErrEnd},
		{"", []chunk{{0, true}}, "", ErrEnd},
		{"a\r\n", []chunk{{3, false}}, "", ErrAborted},
		{"a\r", []chunk{{2, true}}, "", ErrBareCR},
		{"a\rb", []chunk{{2, false}, {1, true}}, "", ErrBareCR},
		{"a\n", []chunk{{2, true}}, "", ErrBareLF},
		{"", []chunk{{1001, true}}, "", ErrTooLarge},
		{"a", []chunk{{1, false}, {1<<63 - 1, true}}, "", ErrTooLarge},
	} {
		conn, _ := pair(t, c.in)
		var b *Body
		at := 0
		next := func() error {
			if at == len(c.chunks) {
				return ErrAborted
			}
			b.Chunk(c.chunks[at].size, c.chunks[at].last)
			at++
			return nil
		}
		b = conn.Chunks(limits(), next)
		next()
		got, _ := io.ReadAll(iotest.OneByteReader(b))
		if b.Err() != c.err || c.err == ErrEnd && string(got) != c.want {
			t.Errorf("%q: %q, %v", c.in, got, b.Err())
		}
	}
}

// TestCutOff: a connection that ends is not a message that ends.
func TestCutOff(t *testing.T) {
	conn, client := pair(t, "a\r\n.")
	b := conn.Data(limits())
	if _, err := io.ReadFull(b, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if _, err := io.ReadAll(b); err == nil || b.Err() == nil || b.Err() == ErrEnd {
		t.Errorf("%v, %v", err, b.Err())
	}
}
