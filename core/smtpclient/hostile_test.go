package smtpclient

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
)

// blackHole is a fast server that takes everything and records nothing.
func blackHole(t testing.TB) string {
	return smtptest.Serve(t, func(c net.Conn) {
		br := bufio.NewReaderSize(c, 64<<10)
		bw := bufio.NewWriter(c)
		say := func(s string) {
			bw.WriteString(s)
			if br.Buffered() == 0 {
				bw.Flush()
			}
		}
		say("220 x\r\n")
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				return
			}
			switch line[0] {
			case 'E':
				say("250-x\r\n250-SIZE 0\r\n250 PIPELINING\r\n")
			case 'D':
				say("354 x\r\n")
				for err == nil && !bytes.Equal(line, []byte(".\r\n")) {
					if line, err = br.ReadSlice('\n'); err == bufio.ErrBufferFull {
						err = nil
					}
				}
				say("250 2.0.0 Ok: queued as 4WzZk\r\n")
			default:
				say("250 2.1.0 Ok\r\n")
			}
		}
	})
}

// talk is a peer that says the next of its lines after each command it reads; the first one
// is the greeting. After the last it closes.
func talk(t testing.TB, lines ...string) string {
	return smtptest.Serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for i, l := range lines {
			if i > 0 {
				if _, err := br.ReadString('\n'); err != nil {
					return
				}
			}
			io.WriteString(c, l)
		}
	})
}

// short makes every wait of a client short, but for the whole attempt: nothing else ends it.
func short(o *Options) {
	d := 300 * time.Millisecond
	o.Timeouts = Timeouts{Dial: d, Banner: d, Command: d, Handshake: d, Mail: d, Rcpt: d, Data: d, Block: d, Dot: d, Failover: d, Attempt: time.Hour}
}

// TestN10EndlessReplies: bounded in lines, octets and time, then the mail waits.
func TestN10EndlessReplies(t *testing.T) {
	endless := func(s string) string {
		return smtptest.Serve(t, func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, s); err != nil {
					return
				}
			}
		})
	}
	slow := smtptest.Serve(t, func(c net.Conn) {
		io.WriteString(c, "2")
		io.Copy(io.Discard, c)
	})
	for name, addr := range map[string]string{
		"lines": endless("220-x\r\n"), "one line": endless("220 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), "NULs": endless("\x00\x00\x00\x00"),
		"wide lines": endless("220-" + strings.Repeat("y", 4000) + "\r\n"), "slow": slow,
	} {
		res := newRig(t, nil, short).one(hops(t, "smtp://"+addr))
		if !res.Temporary() {
			t.Errorf("%s: %v", name, res)
		}
	}
}

// TestN10Limits at n-1, n, n+1.
func TestN10Limits(t *testing.T) {
	for n, ok := range map[int]bool{99: true, 100: true, 101: false} {
		text := strings.Repeat("220-x\r\n", n-1) + "220 x\r\n"
		var r reply
		if err := r.read(bufio.NewReaderSize(strings.NewReader(text), maxReplyLine), nil); (err == nil) != ok {
			t.Errorf("%d lines: %v", n, err)
		}
	}
	for n, ok := range map[int]bool{maxReplyLine - 1: true, maxReplyLine: true, maxReplyLine + 1: false} {
		text := "220 " + strings.Repeat("x", n-6) + "\r\n"
		var r reply
		if err := r.read(bufio.NewReaderSize(strings.NewReader(text), maxReplyLine), nil); (err == nil) != ok {
			t.Errorf("line of %d: %v", n, err)
		}
	}
	for n, ok := range map[int]bool{maxReplyBytes: true, maxReplyBytes + 1: false} {
		full := n / 4096
		text := strings.Repeat("220-"+strings.Repeat("x", 4090)+"\r\n", full-1)
		text += "220 " + strings.Repeat("x", 4000) + "\r\n"
		pad := n - len(text)
		text = "220-" + strings.Repeat("x", pad-6) + "\r\n" + text
		var r reply
		if err := r.read(bufio.NewReaderSize(strings.NewReader(text), maxReplyLine), nil); (err == nil) != ok || len(text) != n || len(r.text) > maxReplyText {
			t.Errorf("%d octets: %v", len(text), err)
		}
	}
}

// TestN11Lies: what is no sensible reply makes the mail wait, never bounce, never lost.
func TestN11Lies(t *testing.T) {
	ehlo := "250 x\r\n"
	for name, lines := range map[string][]string{
		"greeting is no reply":        {"abc\r\n"},
		"greeting of two digits":      {"25\r\n"},
		"greeting 999":                {"999 x\r\n"},
		"greeting 155":                {"155 x\r\n"},
		"greeting 354":                {"354 x\r\n"},
		"greeting refuses":            {"554 5.7.1 go away\r\n"},
		"code changes":                {"220-x\r\n554 x\r\n"},
		"354 to EHLO":                 {"220 x\r\n", "354 x\r\n"},
		"EHLO and HELO refused":       {"220 x\r\n", "550 x\r\n", "550 x\r\n"},
		"354 to MAIL":                 {"220 x\r\n", ehlo, "354 x\r\n"},
		"354 to RCPT":                 {"220 x\r\n", ehlo, "250 x\r\n", "354 x\r\n"},
		"250 to DATA":                 {"220 x\r\n", ehlo, "250 x\r\n", "250 x\r\n", "250 x\r\n"},
		"250 before the message":      {"220 x\r\n", ehlo, "250 x\r\n", "250 x\r\n", "354 x\r\n250 thanks\r\n"},
		"garbage to the dot":          {"220 x\r\n", ehlo, "250 x\r\n", "250 x\r\n", "354 x\r\n", "", "", "", "", "what?\r\n"},
		"354 to the dot":              {"220 x\r\n", ehlo, "250 x\r\n", "250 x\r\n", "354 x\r\n", "", "", "", "", "354 again\r\n"},
		"closes after greeting":       {"220 x\r\n"},
		"refuses MAIL, then says 354": {"220 x\r\n", "250-x\r\n250 PIPELINING\r\n", "354 x\r\n354 x\r\n354 x\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			res := newRig(t, nil, short).one(hops(t, "smtp://"+talk(t, lines...)))
			if !res.Temporary() {
				t.Errorf("%v", res)
			}
		})
	}
}

// TestN11EarlyVerdict: a refusal before the end of the message counts, praise does not.
func TestN11EarlyVerdict(t *testing.T) {
	serve := func(say string) string {
		return smtptest.Serve(t, func(c net.Conn) {
			br := bufio.NewReader(c)
			for _, l := range []string{"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n"} {
				io.WriteString(c, l)
				br.ReadString('\n')
			}
			io.WriteString(c, say)
			io.Copy(io.Discard, br)
		})
	}
	big := mail.InlineBody(bytes.Repeat([]byte(strings.Repeat("x", 98)+"\r\n"), 200000))
	for say, code := range map[string]int{"552 5.3.4 too big\r\n": 552, "250 2.0.0 Ok\r\n": 451} {
		e := envelope("a@x.test")
		r := newRig(t, nil, nil)
		res := r.Attempt(t.Context(), &Job{Route: hops(t, "smtp://"+serve(say)), Envelope: e, Recipients: []int{0}, Header: mail.NewHeader([]byte(testHeader)), Body: big})
		if res[0].Code != code {
			t.Errorf("%q: %v", say, res)
		}
	}
}

// TestN11TextIsClean: what a peer says is printable on one line wherever it shows.
func TestN11TextIsClean(t *testing.T) {
	addr := talk(t, "220 x\r\n", "250 x\r\n", "550-5.1.1 a\x00b\x1b[31m\r\n550-5.1.1 c\rd\xff\r\n550 5.1.1 \u202eevil\r\n")
	res := newRig(t, nil, nil).one(hops(t, "smtp://"+addr))
	want(t, res, 550, "5.1.1")
	if res.Text != "a?b?[31m c d? ?evil" {
		t.Errorf("%q", res.Text)
	}
}

// TestN12DropAfterDot: the mail is tried again, not at once elsewhere, and the status tells
// of the possible duplicate.
func TestN12DropAfterDot(t *testing.T) {
	sink, other := smtptest.New(t, smtptest.Options{}), smtptest.New(t, smtptest.Options{})
	sink.On("DOT", smtptest.Drop)
	res := newRig(t, nil, nil).one(hops(t, "smtp://"+sink.Addr(), "smtp://"+other.Addr()))
	want(t, res, 451, "4.4.2")
	if !res.Duplicate || !strings.Contains(res.Text, "duplicate is possible") || other.Connections() != 0 {
		t.Errorf("%+v, %d connections elsewhere", res, other.Connections())
	}
	lmtp := smtptest.New(t, smtptest.Options{LMTP: true})
	lmtp.On("DOT", "", smtptest.Drop)
	two := newRig(t, nil, nil).send(hops(t, "lmtp://"+lmtp.Addr()), envelope("a@x.test", "b@x.test"))
	want(t, two[0], 250, "2.0.0")
	want(t, two[1], 451, "4.4.2")
	if two[0].Duplicate || !two[1].Duplicate {
		t.Errorf("%+v", two)
	}
}

// TestN14ClosingAnywhere: 421 or a dropped connection before the dot: the next hop takes it,
// and without one it waits.
func TestN14ClosingAnywhere(t *testing.T) {
	for _, verb := range []string{"BANNER", "EHLO", "MAIL", "RCPT", "DATA"} {
		for _, say := range []string{"421 4.3.2 closing", smtptest.Drop} {
			for _, ext := range [][]string{nil, {"HELP"}} {
				first, second := smtptest.New(t, smtptest.Options{Extensions: ext}), smtptest.New(t, smtptest.Options{})
				first.On(verb, say, say)
				r := newRig(t, nil, nil)
				want(t, r.one(hops(t, "smtp://"+first.Addr(), "smtp://"+second.Addr())), 250, "2.0.0")
				if len(second.Messages()) != 1 {
					t.Errorf("%s %s: not delivered to the second", verb, say)
				}
				if res := r.one(hops(t, "smtp://"+first.Addr())); !res.Temporary() {
					t.Errorf("%s %s alone: %v", verb, say, res)
				}
			}
		}
	}
	sink := smtptest.New(t, smtptest.Options{})
	sink.On("DOT", "421 4.3.2 closing")
	r := newRig(t, nil, nil)
	if res := r.one(hops(t, "smtp://"+sink.Addr())); res.Code != 421 || res.Duplicate {
		t.Errorf("%+v", res)
	}
}

// TestN15Stalls: a peer that falls silent anywhere costs its phase's limit and no more.
func TestN15Stalls(t *testing.T) {
	for _, verb := range []string{"BANNER", "EHLO", "MAIL", "RCPT", "DATA", "DOT"} {
		sink := smtptest.New(t, smtptest.Options{})
		sink.Always(verb, smtptest.Stall)
		res := newRig(t, nil, short).one(hops(t, "smtp://"+sink.Addr()))
		if !res.Temporary() {
			t.Errorf("%s: %v", verb, res)
		}
	}
	// A peer that stops reading cannot hold us.
	release := make(chan struct{})
	defer close(release)
	addr := smtptest.Serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for _, l := range []string{"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n"} {
			io.WriteString(c, l)
			br.ReadString('\n')
		}
		<-release
	})
	e := envelope("a@x.test")
	res := newRig(t, nil, short).Attempt(t.Context(), &Job{Route: hops(t, "smtp://"+addr), Envelope: e, Recipients: []int{0},
		Body: mail.InlineBody(bytes.Repeat([]byte(strings.Repeat("x", 98)+"\r\n"), 400000))})
	if !res[0].Temporary() {
		t.Errorf("%v", res[0])
	}
}

// TestN15AttemptIsCapped, by its own limit and by the caller.
func TestN15AttemptIsCapped(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	sink.Always("DOT", smtptest.Stall)
	r := newRig(t, nil, func(o *Options) { o.Timeouts.Attempt, o.Timeouts.Dot = 3*time.Second, time.Hour })
	res := r.one(hops(t, "smtp://"+sink.Addr()))
	if !res.Temporary() || !res.Duplicate {
		t.Errorf("%+v", res)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := envelope("a@x.test")
	if res := newRig(t, nil, nil).Attempt(ctx, &Job{Route: hops(t, "smtp://"+sink.Addr()), Envelope: e, Recipients: []int{0}}); !res[0].Temporary() {
		t.Errorf("%v", res)
	}
}

// TestN21BrokenPipelining: a hop that mixes up pipelined commands is spoken to one command
// at a time, from then on.
func TestN21BrokenPipelining(t *testing.T) {
	for name, answer := range map[string]func(cmds int) string{
		"one reply for all": func(int) string { return "250 x\r\n" },
		"354 first":         func(n int) string { return "354 x\r\n" + strings.Repeat("250 x\r\n", n-1) },
	} {
		t.Run(name, func(t *testing.T) {
			delivered := make(chan string, 10)
			addr := smtptest.Serve(t, func(c net.Conn) {
				b := make([]byte, 65536)
				read := func() string { n, _ := c.Read(b); return string(b[:n]) }
				io.WriteString(c, "220 x\r\n")
				for {
					s := read()
					switch n := strings.Count(s, "\r\n"); {
					case s == "" || s[0] == 'Q':
						return
					case s[0] == 'E':
						io.WriteString(c, "250-x\r\n250 PIPELINING\r\n")
					case n > 1:
						io.WriteString(c, answer(n))
					case s[0] == 'D':
						io.WriteString(c, "354 x\r\n")
						delivered <- read()
						io.WriteString(c, "250 x\r\n")
					default:
						io.WriteString(c, "250 x\r\n")
					}
				}
			})
			r := newRig(t, nil, short)
			for range 2 {
				want(t, r.one(hops(t, "smtp://"+addr)), 250, "2.0.0")
			}
			if len(delivered) != 2 || len(r.dials()) != 2 {
				t.Errorf("%d delivered, %d dialled", len(delivered), len(r.dials()))
			}
		})
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "250\n", "550 5.1.1 x\r\n", "250-a\r\n251 b\r\n", "999 x\r\n", "", "4.4.4\r\n", "550 5..1\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r reply
		br := bufio.NewReaderSize(bytes.NewReader(b), maxReplyLine)
		for r.read(br, nil) == nil {
			s := r.status("peer")
			if r.code < 200 || r.code > 559 || len(r.text) > maxReplyText || len(s.Text) > 400 || s.Enhanced[0] != s.Code/100 {
				t.Fatalf("%+v %+v", r, s)
			}
			if strings.ContainsFunc(s.Text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
				t.Fatalf("%q", s.Text)
			}
			if d := r.deferred(3, 2, "peer", "x"); !d.Temporary() {
				t.Fatal(d)
			}
		}
	})
}
