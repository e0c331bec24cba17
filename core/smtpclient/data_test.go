package smtpclient

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
)

// corpus is messages that a relay must not change (H-09).
func corpus() []string {
	list := []string{
		"", ".", "..", ".\r\n", "..\r\n", "\r\n", "\r\n.\r\n", "\r\n.\r\n.\r\n", "a\r\n.", ".\r\n.\r\n", "trailing spaces  \t\r\n",
		"no line end", "8-bit \xff\xfe\r\n", strings.Repeat("x", 70000) + "\r\n", strings.Repeat("x", writeSize-1) + "\r\n.\r\n",
		strings.Repeat("x", writeSize-2) + "\r\n.\r\n", strings.Repeat(".\r\n", 20000), "\r\n\r\n\r\n",
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		var b strings.Builder
		for range rnd.IntN(300) {
			b.WriteString([]string{".", "..", "\r\n", "abc", " ", "\xe9", strings.Repeat("y", rnd.IntN(500))}[rnd.IntN(7)])
		}
		list = append(list, b.String())
	}
	return list
}

// TestH09ByteExact: header and body arrive as they are, from memory and from a file. Only
// a last line without an end gets one: the dot needs a line of its own.
func TestH09ByteExact(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	r := newRig(t, nil, nil)
	to := hops(t, "smtp://"+sink.Addr())
	e := envelope("a@x.test")
	path := filepath.Join(t.TempDir(), "body")
	for i, msg := range corpus() {
		if err := os.WriteFile(path, []byte("junk"+msg+"junk"), 0o600); err != nil {
			t.Fatal(err)
		}
		for k, job := range []*Job{
			{Header: mail.NewHeader([]byte("X: 1\r\n\r\n")), Body: mail.InlineBody([]byte(msg))},
			{Header: mail.NewHeader([]byte("X: 1\r\n\r\n")), Body: mail.Body{Path: path, Offset: 4, Size: int64(len(msg))}},
			{Body: mail.InlineBody([]byte(msg))}, // no header at all
		} {
			job.Route, job.Envelope, job.Recipients = to, e, []int{0}
			want(t, r.Attempt(t.Context(), job)[0], 250, "2.0.0")
			m := sink.Messages()
			got := string(m[len(m)-1].Data)
			whole := string(job.Header.Block()) + msg
			if whole != "" && !strings.HasSuffix(whole, "\r\n") {
				whole += "\r\n"
			}
			if got != whole {
				t.Fatalf("message %d, way %d: sent %.80q, got %.80q", i, k, whole, got)
			}
		}
	}
}

// TestS14NothingBareLeaves: whoever let it in, a message that could smuggle fails for good,
// and the peer gets no end of message.
func TestS14NothingBareLeaves(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	r := newRig(t, nil, nil)
	to := hops(t, "smtp://"+sink.Addr())
	path := filepath.Join(t.TempDir(), "body")
	for _, end := range []string{"\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\r\r\n.\r\n", "\r\n.\r\r\n", "\x00", "\r\n.\x00\r\n", "a\n", "a\r", "\r", "\n"} {
		for _, prefix := range []string{"", "text", "text\r\n", strings.Repeat("z", writeSize-1), strings.Repeat("z", writeSize)} {
			bad := prefix + end
			if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			smuggled := bad + "MAIL FROM:<evil@x>\r\n"
			for _, job := range []*Job{
				{Header: mail.NewHeader([]byte(testHeader)), Body: mail.InlineBody([]byte(bad))},
				{Header: mail.NewHeader([]byte(testHeader)), Body: mail.InlineBody([]byte(smuggled))},
				{Header: mail.NewHeader([]byte(testHeader)), Body: mail.Body{Path: path, Size: int64(len(bad))}},
				{Header: mail.NewHeader([]byte("A: 1" + bad))},
			} {
				job.Route, job.Envelope, job.Recipients = to, envelope("a@x.test", "b@x.test"), []int{0, 1}
				res := r.Attempt(t.Context(), job)
				want(t, res[0], 554, "5.6.0")
				want(t, res[1], 554, "5.6.0")
			}
		}
	}
	if len(sink.Messages()) != 0 {
		t.Errorf("%d messages got through", len(sink.Messages()))
	}
}

// stuff is the plain specification of dataWriter.
func stuff(msg []byte) ([]byte, bool) {
	rest := strings.ReplaceAll(string(msg), "\r\n", "")
	if strings.ContainsAny(rest, "\r\n\x00") {
		return nil, false
	}
	if len(msg) > 0 && !bytes.HasSuffix(msg, []byte("\r\n")) {
		msg = append(bytes.Clone(msg), "\r\n"...)
	}
	lines := strings.SplitAfter(string(msg), "\r\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = "." + l
		}
	}
	return []byte(strings.Join(lines, "")), true
}

func FuzzDataWriter(f *testing.F) {
	for _, s := range []string{"a\r\n.\r\n", "\r\n.\r\n", ".", "\n", "\r", "a\rb", "a\x00", "\r\r\n"} {
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, msg []byte, step uint8) {
		want, ok := stuff(msg)
		var out bytes.Buffer
		w := bufio.NewWriterSize(&out, 16)
		d := dataWriter{w: w}
		var err error
		for rest := msg; len(rest) > 0 && err == nil; {
			n := min(len(rest), int(step%17)+1)
			_, err = d.Write(rest[:n])
			rest = rest[n:]
		}
		if err == nil {
			err = d.end()
		}
		w.Flush()
		if ok != (err == nil) || ok && !bytes.Equal(out.Bytes(), want) {
			t.Fatalf("%q: %v, wrote %q, want %q", msg, err, out.Bytes(), want)
		}
		if err != nil && !errors.Is(err, errContent) {
			t.Fatal(err)
		}
		if err != nil && bytes.Contains(out.Bytes(), []byte("\n.\n")) {
			t.Fatalf("smuggled: %q", out.Bytes())
		}
	})
}

func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{4 << 10, 10 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			addr := blackHole(b)
			r := newRig(b, nil, func(o *Options) { o.Log = nil; o.Pool.MaxMessages = 1 << 30 })
			body := bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), size/72)
			e := envelope("a@x.test")
			job := &Job{Route: hops(b, "smtp://"+addr), Envelope: e, Recipients: []int{0}, Header: mail.NewHeader([]byte(testHeader)), Body: mail.InlineBody(body)}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if res := r.Attempt(b.Context(), job); res[0].Code != 250 {
					b.Fatal(res[0])
				}
			}
		})
	}
}
