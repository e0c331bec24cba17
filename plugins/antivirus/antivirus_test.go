package antivirus

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func plugin(t testing.TB, settings string) *Plugin {
	t.Helper()
	p := New()
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings)}); err != nil {
		t.Fatal(err)
	}
	return p
}

func message(text string) *mail.Message {
	h, body := mail.SplitMessage([]byte(text))
	return &mail.Message{
		Envelope: mail.Envelope{ID: "0c1f3k9w2m4xq", Origin: mail.Incoming, ReversePath: mail.MustPath("a@example.net"),
			Recipients: []mail.Recipient{{Path: mail.MustPath("b@example.org")}}},
		Header: h, Body: mail.InlineBody(body),
	}
}

const head = "From: a@example.net\r\nSubject: x\r\n\r\n"

// engine is a clamd that does what a test wants, after it has read n bytes (below 0: until
// the sender has sent everything).
func engine(t testing.TB, read int64, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(done)
				return
			}
			if read >= 0 {
				io.CopyN(io.Discard, c, read)
			} else {
				drain(c)
			}
			answer(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "unix:" + l.Addr().String()
}

// drain reads a whole INSTREAM command and returns the message.
func drain(c net.Conn) string {
	io.CopyN(io.Discard, c, int64(len("zINSTREAM\x00")))
	var text strings.Builder
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return text.String()
		}
		n := int64(size[0])<<24 | int64(size[1])<<16 | int64(size[2])<<8 | int64(size[3])
		if n == 0 {
			return text.String()
		}
		io.CopyN(&text, c, n)
	}
}

func says(text string) func(net.Conn) {
	return func(c net.Conn) { io.WriteString(c, text) }
}

func settings(more string, addresses ...string) string {
	if !strings.Contains(more, "fildes") {
		more += "\nfildes = false"
	}
	return fmt.Sprintf("addresses = [\"%s\"]\n%s", strings.Join(addresses, `", "`), more)
}

// What clamd says, and what becomes of it.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ answer, more, want string }{
		{"stream: OK\x00", "", "continue  result=clean"},
		{"stream: Win.Test.EICAR_HDB-1 FOUND\x00", "", "reject 554 5.7.1 Virus found: Win.Test.EICAR_HDB-1 result=infected signature=Win.Test.EICAR_HDB-1"},
		{"stream: Eicar(44d88612fea8a8f36de82e1278abb02f:68) FOUND\x00", "", "reject 554 5.7.1 Virus found: Eicar result=infected signature=Eicar"},
		{"fd[10]: A (b) \"c\" FOUND\x00", "infected = 'quarantine'", "quarantine virus A__b___c_ result=infected signature=A__b___c_ X-Virus-Status: Infected (A__b___c_)"},
		{"stream: X FOUND\x00", "infected = 'discard'", "discard virus X result=infected signature=X"},
		{"stream: X FOUND\x00", "infected = 'accept'", "continue  result=infected signature=X"},
		{"stream: X FOUND\x00", "infected = 'tag'", "continue  result=infected signature=X X-Virus-Status: Infected (X)"},
		{"stream: X FOUND\x00", "infected = 'unscanned'", "unscanned virus X result=infected signature=X"},
		{"stream: OK FOUND\x00", "", "reject 554 5.7.1 Virus found: OK result=infected signature=OK"},
		{"stream: " + strings.Repeat("x", 900) + " FOUND\x00", "infected = 'discard'", "discard virus " + strings.Repeat("x", 200) + " result=infected signature=" + strings.Repeat("x", 200)},
		{"stream: Heuristics.Encrypted.Zip FOUND\x00", "", "quarantine encrypted, Heuristics.Encrypted.Zip result=encrypted signature=Heuristics.Encrypted.Zip X-Virus-Status: Not scanned (encrypted, Heuristics.Encrypted.Zip)"},
		{"stream: Heuristics.Encrypted.Zip FOUND\x00", "encrypted = 'reject'", "reject 554 5.7.1 Encrypted content cannot be scanned: Heuristics.Encrypted.Zip result=encrypted signature=Heuristics.Encrypted.Zip"},
		{"INSTREAM size limit exceeded. ERROR\x00", "", "quarantine too large, StreamMaxLength result=too_large signature=StreamMaxLength X-Virus-Status: Not scanned (too large, StreamMaxLength)"},
		{"INSTREAM size limit exceeded. ERROR\x00", "too_large = 'reject'", "reject 552 5.3.4 Message is too large to be scanned: StreamMaxLength result=too_large signature=StreamMaxLength"},
		{"stream: Heuristics.Limits.Exceeded.MaxFiles FOUND\x00", "too_large = 'unscanned'", "unscanned too large, Heuristics.Limits.Exceeded.MaxFiles result=too_large signature=Heuristics.Limits.Exceeded.MaxFiles"},
		{"stream: Heuristics.Limits.Exceeded.MaxScanTime FOUND\x00", "too_large = 'accept'", "unscanned timeout result=timeout"},
		{"stream: Heuristics.Broken.Executable FOUND\x00", "broken = 'reject'", "reject 554 5.6.0 Content is damaged and cannot be scanned: Heuristics.Broken.Executable result=broken signature=Heuristics.Broken.Executable"},
	} {
		p := plugin(t, settings(tc.more, engine(t, -1, says(tc.answer))))
		v, err := sdktest.Filter(t, p, Manifest(), message(head+"text\r\n"))
		if err != nil {
			t.Errorf("%q: %v", tc.answer, err)
			continue
		}
		if got := show(v); got != tc.want {
			t.Errorf("%.60q %s:\n got %s\nwant %s", tc.answer, tc.more, got, tc.want)
		}
	}
}

func show(v *sdk.Verdict) string {
	s := v.Action.String() + " " + v.Reason
	if !v.Status.IsZero() {
		s += v.Status.Error()
	}
	for _, k := range []string{"result", "signature"} {
		if n, ok := v.Notes[k]; ok {
			s += " " + k + "=" + n
		}
	}
	for _, e := range v.Edits {
		if e.Kind == sdk.HeaderRemove {
			s += " -" + e.Name
		} else {
			s += " " + e.Name + ": " + e.Value
		}
	}
	return s
}

// An engine that lies, breaks off or never ends is a failure, never a pass.
func TestLiars(t *testing.T) {
	t.Parallel()
	big := message(head + strings.Repeat("0123456789abcdef", 1<<17)) // more than socket buffers hold
	for name, tc := range map[string]struct {
		read   int64
		answer func(net.Conn)
	}{
		"nothing":           {-1, says("")},
		"closed at once":    {0, says("")},
		"half an answer":    {-1, says("stream: O")},
		"no end":            {-1, says("stream: OK")},
		"line end":          {-1, says("stream: OK\n")},
		"two answers":       {-1, says("stream: OK\x00stream: OK\x00")},
		"garbage":           {-1, says("\xff\x01\x02\x00")},
		"empty":             {-1, says("\x00")},
		"HTTP":              {-1, says("HTTP/1.0 200 OK\r\n\r\n\x00")},
		"other case":        {-1, says("stream: ok\x00")},
		"other prefix":      {-1, says("/tmp/x: OK\x00")},
		"no name":           {-1, says("stream:  FOUND\x00")},
		"only details":      {-1, says("stream: (44d88612fea8a8f36de82e1278abb02f:68) FOUND\x00")},
		"line in a name":    {-1, says("stream: a\r\nb FOUND\x00")},
		"error":             {-1, says("stream: Can't allocate memory ERROR\x00")},
		"unknown command":   {-1, says("UNKNOWN COMMAND\x00")},
		"timed out reading": {-1, says("COMMAND READ TIMED OUT\x00")},
		"giant":             {-1, func(c net.Conn) { c.Write(make([]byte, 1<<20)) }},
		"endless": {-1, func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, "stream: OK "); err != nil {
					return
				}
			}
		}},
		"clean too soon": {100, says("stream: OK\x00")}, // has not seen all of it
	} {
		p := plugin(t, settings("", engine(t, tc.read, tc.answer)))
		v, err := sdktest.Filter(t, p, Manifest(), big)
		if err == nil {
			t.Errorf("%s: %s", name, show(v))
		} else if strings.ContainsAny(err.Error(), "\r\n\x00") || len(err.Error()) > 600 {
			t.Errorf("%s: error %q", name, err)
		}
	}
}

// What an engine finds before it has read everything counts.
func TestFoundEarly(t *testing.T) {
	t.Parallel()
	p := plugin(t, settings("", engine(t, 100, says("stream: X FOUND\x00"))))
	v, err := sdktest.Filter(t, p, Manifest(), message(head+strings.Repeat("0123456789abcdef", 1<<17)))
	if err != nil || v.Action != sdk.ActionReject {
		t.Errorf("%v %v", v, err)
	}
}

// promised is a context that ends at no time, whatever it says: who relies on the end of it
// waits for ever.
type promised struct {
	context.Context
	end time.Time
}

func (p promised) Deadline() (time.Time, bool) { return p.end, true }

// An engine that does not answer, or does not read, is unscanned, and not only when the call is
// over.
func TestTimeout(t *testing.T) {
	t.Parallel()
	for _, read := range []int64{0, -1} {
		stop := make(chan struct{})
		p := plugin(t, settings("", engine(t, read, func(net.Conn) { <-stop })))
		v, err := p.Filter(promised{t.Context(), time.Now().Add(time.Second)}, message(head+strings.Repeat("0123456789abcdef", 1<<17)))
		if err != nil || v.Action != sdk.ActionUnscanned || v.Reason != "timeout" {
			t.Errorf("%v %v", v, err)
		}
		close(stop)
	}
}

// The stream is the message after a line, whatever its size is to that of a chunk.
func TestStream(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, chunk - 4, chunk - 8 - 10, chunk - 8 - 9, chunk - 8 - 11, chunk, 2*chunk - 8 - 8 - 10, 3*chunk + 17} {
		size = max(size-len(letter), min(size, 1))
		text := head + strings.Repeat("x", max(0, size-len(head)))
		if size < len(head) {
			text = strings.Repeat("X", size)
		}
		got := make(chan string, 1)
		p := plugin(t, settings("", engine(t, 0, func(c net.Conn) { got <- drain(c); io.WriteString(c, "stream: OK\x00") })))
		v, err := sdktest.Filter(t, p, Manifest(), message(text))
		if err != nil || v.Action != sdk.ActionContinue {
			t.Fatalf("%d: %v", size, err)
		}
		if s := <-got; s != letter+text {
			t.Errorf("%d: %d bytes came", size, len(s))
		}
	}
}

// A clamd that cannot take a descriptor is sent the message, this time and from then on.
func TestFILDESRefused(t *testing.T) {
	t.Parallel()
	var commands []string
	var mu sync.Mutex
	fake := engine(t, 0, func(c net.Conn) {
		command := make([]byte, len("zINSTREAM\x00"))
		n, _ := io.ReadAtLeast(c, command, len("zFILDES\x00"))
		mu.Lock()
		commands = append(commands, string(command[1:4]))
		mu.Unlock()
		if strings.HasPrefix(string(command[:n]), "zFILDES") {
			io.WriteString(c, "FILDES: didn't receive file descriptor ERROR\x00")
			return
		}
		io.CopyN(io.Discard, c, 4+int64(len(head))+4)
		io.WriteString(c, "stream: OK\x00")
	})
	auto, always := plugin(t, settings("fildes = 'auto'", fake)), plugin(t, settings("fildes = true", fake))
	for range 2 {
		if v, err := sdktest.Filter(t, auto, Manifest(), message(head)); err != nil || v.Notes["result"] != "clean" {
			t.Errorf("%v %v", v, err)
		}
	}
	if v, err := sdktest.Filter(t, always, Manifest(), message(head)); err == nil {
		t.Error(show(v))
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(commands, " "); got != "FIL INS INS FIL" {
		t.Errorf("commands %s", got)
	}
}

// A damaged body is not the engine's fault, and no other engine is asked.
func TestBodyDamaged(t *testing.T) {
	t.Parallel()
	p := plugin(t, settings("", engine(t, 0, says("stream: OK\x00")), engine(t, -1, says("stream: OK\x00"))))
	m := message(head)
	m.Body = mail.Body{Path: filepath.Join(t.TempDir(), "gone"), Size: 10}
	if v, err := p.Filter(t.Context(), m); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v %v", v, err)
	}
}

// H-03: the gateway takes forged fields away; our own says what is true.
func TestH03ForgedFields(t *testing.T) {
	t.Parallel()
	if !Manifest().OwnsField("x-virus-status") {
		t.Error("the field is not ours")
	}
	m := message("From: a@b.test\r\n\r\ntext\r\n")
	for more, want := range map[string]string{"": "", "header = true": "X-Virus-Status: Clean\r\n"} {
		p := plugin(t, settings(more, engine(t, -1, says("stream: OK\x00"))))
		v, err := sdktest.Filter(t, p, Manifest(), m)
		if err != nil {
			t.Fatal(err)
		}
		h := m.Header
		if err := sdktest.Apply(v, &h); err != nil || string(h.Block()) != want+"From: a@b.test\r\n\r\n" {
			t.Errorf("%v: %q", err, h.Block())
		}
	}
}

func TestSettings(t *testing.T) {
	for text, want := range map[string]string{
		"addresses = []":             "addresses is empty",
		`addresses = ["x"]`:          `"x" is neither`,
		`addresses = ["unix:x"]`:     "path of a socket",
		`infected = "drop"`:          `infected: "drop" is none of reject, quarantine, discard, tag, accept, unscanned`,
		`encrypted = ""`:             "encrypted",
		`too_large = "x"`:            "too_large",
		`broken = "x"`:               "broken",
		`max_size = 1`:               `unknown key "max_size"`,
		`fildes = "yes"`:             "fildes",
		"infected = 'tag'":           "",
		`addresses = ["[::1]:3310"]`: "",
		"":                           "",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(text)})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	for _, s := range []string{"stream: OK", "stream: X FOUND", sizeLimit, "fd[9]: a(0123456789abcdef0123456789abcdef:1) FOUND", "stream: x ERROR", ": "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseReply(s)
		if err != nil {
			return
		}
		if a.finding == clean && !strings.HasSuffix(s, ": OK") {
			t.Errorf("%q is clean", s)
		}
		if _, err := mail.FormatField(field, a.status()); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}
