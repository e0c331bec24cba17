package spam

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func plugin(t testing.TB, settings string) *Plugin {
	t.Helper()
	p := New()
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings), Hostname: "mx.example.org"}); err != nil {
		t.Fatal(err)
	}
	return p
}

const text = "From: a@example.net\r\nSubject: x\r\nMessage-ID: <1@example.net>\r\n\r\ntext\r\n"

func message(s string, rcpts ...string) *mail.Message {
	h, body := mail.SplitMessage([]byte(s))
	m := &mail.Message{
		Envelope: mail.Envelope{ID: "0c1f3k9w2m4xq", Origin: mail.Incoming, ReversePath: mail.MustPath("a@example.net"),
			Client: mail.Client{Addr: netip.MustParseAddr("192.0.2.7"), Helo: "mail.example.net", Host: "out.example.net", User: ""}},
		Header: h, Body: mail.InlineBody(body),
	}
	if len(rcpts) == 0 {
		rcpts = []string{"b@example.org"}
	}
	for _, r := range rcpts {
		m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: mail.MustPath(r)})
	}
	return m
}

// says is an rspamd that says the same to everybody.
func says(t testing.TB, answer string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return fmt.Sprintf("url = %q\n", s.URL)
}

// show is a verdict in a line: outcomes, and the header that comes of it for a recipient.
func show(t testing.TB, v *sdk.Verdict, m *mail.Message, rcpt int) string {
	t.Helper()
	o := v.Outcome
	if p, ok := v.PerRecipient[rcpt]; ok {
		o = p
	}
	s := o.Action.String()
	if !o.Status.IsZero() {
		s += " " + o.Status.Error()
	}
	if o.Reason != "" {
		s += " " + o.Reason
	}
	only := &sdk.Verdict{}
	for _, e := range v.Edits {
		if e.Recipients == nil || slices.Contains(e.Recipients, rcpt) {
			only.Edits = append(only.Edits, e)
		}
	}
	h := m.Header
	if err := sdktest.Apply(only, &h); err != nil {
		t.Error(err)
	}
	return s + "\n" + string(h.Block())
}

func judged(action string, score float64, more string) string {
	return fmt.Sprintf(`{"action":%q,"score":%g,"required_score":15,"symbols":{"B":{"score":1},"A":{"score":2}},"messages":{},"future":[{"x":1}]%s}`, action, score, more)
}

const (
	original = "From: a@example.net\r\nSubject: x\r\nMessage-ID: <1@example.net>\r\n\r\n"
	tail     = " required=15.0\r\n\ttests=A,B\r\n" + original
)

// Every action of rspamd, and thresholds of our own.
func TestActions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		action string
		score  float64
		more   string
		policy string
		want   string
	}{
		{"no action", 1.26, "", "", "continue\nX-Spam-Score: 1.3\r\nX-Spam-Level: *\r\nX-Spam-Status: No, score=1.3" + tail},
		{"no action", -3, "", "", "continue\nX-Spam-Score: -3.0\r\nX-Spam-Status: No, score=-3.0" + tail},
		{"no action", 1, "", "headers = false", "continue\n" + original},
		{"add header", 7, "", "", "continue\nX-Spam-Flag: YES\r\nX-Spam-Score: 7.0\r\nX-Spam-Level: *******\r\nX-Spam-Status: Yes, score=7.0" + tail},
		{"add header", 7, "", "headers = false", "continue\nX-Spam-Flag: YES\r\n" + original},
		{"add header", 7, "", "tag = 'off'\nheaders = false", "continue\n" + original},
		{"rewrite subject", 8, `,"subject":"[spam] K\u00e4se"`, "headers = false", "continue\nX-Spam-Flag: YES\r\nFrom: a@example.net\r\nSubject: =?utf-8?q?[spam]_K=C3=A4se?=\r\nMessage-ID: <1@example.net>\r\n\r\n"},
		{"rewrite subject", 8, `,"subject":"a\r\nBcc: x@y.test\u0000"`, "headers = false", "continue\nX-Spam-Flag: YES\r\nFrom: a@example.net\r\nSubject: a  Bcc: x@y.test\r\nMessage-ID: <1@example.net>\r\n\r\n"},
		{"soft reject", 1, `,"messages":{"smtp_message":"Slow\r\n250 down"}`, "", "tempfail 451 4.7.1 Slow  250 down\n" + original},
		{"soft reject", 1, "", "", "tempfail 451 4.7.1 Try again later\n" + original},
		{"reject", 20, "", "", "reject 554 5.7.1 Message is spam\n" + original},
		{"reject", 20, `,"messages":{"smtp_message":"Gtube pattern"}`, "", "reject 554 5.7.1 Gtube pattern\n" + original},
		{"reject", 20, `,"messages":[]`, "", "reject 554 5.7.1 Message is spam\n" + original},
		{"reject", 20, "", "reject = 'off'\nheaders = false", "quarantine spam, score 20.0 of 15.0, action reject\nX-Spam-Flag: YES\r\n" + original},
		{"reject", 20, "", "reject = 21\nquarantine = 'off'", "reject 554 5.7.1 Message is spam\n" + original},
		{"reject", 20, "", "reject = 'off'\nquarantine = 'off'\ntag = 'off'\nheaders = false", "continue\n" + original},
		{"quarantine", 9, "", "headers = false", "quarantine spam, score 9.0 of 15.0, action quarantine\nX-Spam-Flag: YES\r\n" + original},
		{"discard", 9, "", "", "discard spam, score 9.0 of 15.0, action discard\n" + original},
		{"discard", 9, "", "reject = 'off'\nheaders = false", "quarantine spam, score 9.0 of 15.0, action discard\nX-Spam-Flag: YES\r\n" + original},
		{"no action", 4.9, "", "tag = 5\nheaders = false", "continue\n" + original},
		{"no action", 5, "", "tag = 5", "continue\nX-Spam-Flag: YES\r\nX-Spam-Score: 5.0\r\nX-Spam-Level: *****\r\nX-Spam-Status: Yes, score=5.0 required=5.0\r\n\ttests=A,B\r\n" + original},
		{"add header", 5, "", "tag = 5.01\nheaders = false", "continue\nX-Spam-Flag: YES\r\n" + original},
		{"no action", 9.99, "", "quarantine = 10\nheaders = false", "continue\n" + original},
		{"no action", 10, "", "quarantine = 10\nheaders = false", "quarantine spam, score 10.0 of 15.0\nX-Spam-Flag: YES\r\n" + original},
		{"no action", 10, "", "reject = 10", "reject 554 5.7.1 Message is spam\n" + original},
		{"greylist", 5, "", "headers = false", "continue\n" + original}, // nothing to remember with
	} {
		p := plugin(t, says(t, judged(tc.action, tc.score, tc.more))+tc.policy)
		m := message(text)
		v, err := sdktest.Filter(t, p, Manifest(), m)
		if err != nil {
			t.Errorf("%s: %v", tc.action, err)
			continue
		}
		if got := show(t, v, m, 0); got != tc.want {
			t.Errorf("%s %g %s %s:\n got %q\nwant %q", tc.action, tc.score, tc.more, tc.policy, got, tc.want)
		}
		if v.Notes["action"] != tc.action || v.Notes["symbols"] != "A B" || v.Scores["score"] != tc.score || v.Scores["required"] != 15 {
			t.Errorf("%s: notes %v scores %v", tc.action, v.Notes, v.Scores)
		}
		if want := max(0, min(100, tc.score/15*100)); math.Abs(v.Scores["percent"]-want) > 1e-9 {
			t.Errorf("%s: %v percent, want %v", tc.action, v.Scores["percent"], want)
		}
	}
}

// A second subject does not hide the mark.
func TestSecondSubject(t *testing.T) {
	t.Parallel()
	p := plugin(t, says(t, judged("rewrite subject", 8, `,"subject":"[spam] one"`))+"headers = false\n[domains]\n\"lax.test\" = {tag = \"off\"}\n")
	m := message("subject: one\r\nFrom: a@example.net\r\nSubject: two\r\nSubject: three\r\n\r\ntext\r\n", "a@example.org", "b@lax.test")
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"continue\nX-Spam-Flag: YES\r\nFrom: a@example.net\r\nSubject: [spam] one\r\n\r\n",
		"continue\nsubject: one\r\nFrom: a@example.net\r\nSubject: two\r\nSubject: three\r\n\r\n",
	} {
		if got := show(t, v, m, i); got != want {
			t.Errorf("recipient %d:\n got %q\nwant %q", i, got, want)
		}
	}
}

// Recipients of several domains have outcomes and fields of their own.
func TestDomains(t *testing.T) {
	t.Parallel()
	p := plugin(t, says(t, judged("add header", 7, ""))+`
reject = 10
[domains]
"strict.test" = {reject = 6}
"hold.test" = {quarantine = 7}
"lax.test" = {tag = 8}
"Off.test" = {tag = "off"}
`)
	m := message(text, "a@example.org", "b@strict.test", "c@hold.test", "d@lax.test", "e@OFF.test", "f@example.com")
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	score := "X-Spam-Score: 7.0\r\nX-Spam-Level: *******\r\nX-Spam-Status: "
	for i, want := range []string{
		"continue\nX-Spam-Flag: YES\r\n" + score + "Yes, score=7.0" + tail,
		"reject 554 5.7.1 Message is spam\n" + original,
		"quarantine spam, score 7.0 of 15.0\nX-Spam-Flag: YES\r\n" + score + "Yes, score=7.0" + tail,
		"continue\nX-Spam-Flag: YES\r\n" + score + "Yes, score=7.0 required=8.0\r\n\ttests=A,B\r\n" + original,
		"continue\n" + score + "No, score=7.0" + tail,
		"continue\nX-Spam-Flag: YES\r\n" + score + "Yes, score=7.0" + tail,
	} {
		if got := show(t, v, m, i); got != want {
			t.Errorf("recipient %d:\n got %q\nwant %q", i, got, want)
		}
	}
}

// H-03: what a message says of itself the gateway takes away, whatever its case; what the engine
// wants gone of it besides does no harm.
func TestH03ForgedFields(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-Spam", "x-spam-flag", "X-SPAM-Status", "X-Spam-Level", "X-Spam-Score", "X-Spam-Checker-Version", "X-Spamd-Result"} {
		if !Manifest().OwnsField(name) {
			t.Errorf("%s is not ours", name)
		}
	}
	p := plugin(t, says(t, judged("no action", 1, `,"milter":{"remove_headers":{"X-Spam-Flag":0}}`))+"headers = false")
	m := message("X-Spam-Flag: NO\r\nX-Spam-Flag: NO\r\n" + text)
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	h := m.Header
	if err := sdktest.Apply(v, &h); err != nil || h.Has("X-Spam-Flag") {
		t.Errorf("%v\n%s", err, h.Block())
	}
}

// rspamd adds and removes fields; nothing that it says begins another one.
func TestMilterHeaders(t *testing.T) {
	t.Parallel()
	m := message("X-A: 1\r\nX-A: 2\r\nX-A: 3\r\nX-B: 1\r\nX-B: 2\r\nX-C: 1\r\nX-D: 1\r\n" + text)
	p := plugin(t, says(t, judged("no action", 1, `,"milter":{"remove_headers":{"X-A":[1,3],"x-b":0,"X-C":-1,"X-D":7,"X-None":0},
		"add_headers":{"X-One":"1","X-End":{"value":"e","order":-1},"X-Many":[{"value":"a","order":0},"b"],
		"X-Folded":"a;\n\tb\nc\r\n \r\n d\u0000e\rBcc: x"}}`))+"headers = false")
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	want := "continue\nX-One: 1\r\nX-Many: b\r\nX-Many: a\r\nX-Folded: a;\r\n\tb\r\n\tc\r\n d e\r\n\tBcc: x\r\nX-A: 2\r\nX-D: 1\r\nFrom: a@example.net\r\nSubject: x\r\nMessage-ID: <1@example.net>\r\nX-End: e\r\n\r\n"
	if got := show(t, v, m, 0); got != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

// An rspamd that lies, breaks off or never ends is a failure, never a pass.
func TestRspamdLies(t *testing.T) {
	t.Parallel()
	ok := judged("no action", 1, "")
	for name, answer := range map[string]string{
		"nothing":           "",
		"closed":            "HTTP/1.1 ",
		"garbage":           "\xff\x00\x01\r\n\r\n",
		"no JSON":           "HTTP/1.1 200 OK\r\n\r\nOK",
		"empty":             "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"not 200":           "HTTP/1.1 500 Oops\r\n\r\n" + ok,
		"forbidden":         "HTTP/1.1 403 no\r\n\r\n{\"error\":\"bad\\npassword\"}",
		"redirect":          "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
		"cut off":           fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(ok)+1, ok),
		"cut JSON":          fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(ok)-1, ok),
		"two answers":       "HTTP/1.1 200 OK\r\n\r\n" + ok + ok,
		"array":             "HTTP/1.1 200 OK\r\n\r\n[" + ok + "]",
		"null":              "HTTP/1.1 200 OK\r\n\r\nnull",
		"no action":         "HTTP/1.1 200 OK\r\n\r\n{\"score\":1,\"required_score\":15}",
		"no score":          "HTTP/1.1 200 OK\r\n\r\n{\"action\":\"no action\",\"required_score\":15}",
		"no required score": "HTTP/1.1 200 OK\r\n\r\n{\"action\":\"no action\",\"score\":1}",
		"score as text":     "HTTP/1.1 200 OK\r\n\r\n{\"action\":\"no action\",\"score\":\"1\",\"required_score\":15}",
		"endless score":     "HTTP/1.1 200 OK\r\n\r\n{\"action\":\"no action\",\"score\":1e999,\"required_score\":15}",
		"unknown action":    "HTTP/1.1 200 OK\r\n\r\n" + judged("perhaps", 1, ""),
		"bad field name":    "HTTP/1.1 200 OK\r\n\r\n" + judged("no action", 1, `,"milter":{"add_headers":{"X:\r\nBcc":"x"}}`),
		"bad removal":       "HTTP/1.1 200 OK\r\n\r\n" + judged("no action", 1, `,"milter":{"remove_headers":{"X":"all"}}`),
		"too many fields":   "HTTP/1.1 200 OK\r\n\r\n" + judged("no action", 1, `,"milter":{"add_headers":{"X":[`+strings.Repeat(`"a",`, 200)+`"a"]}}`),
		"giant":             "HTTP/1.1 200 OK\r\n\r\n" + judged("no action", 1, `,"x":"`+strings.Repeat("x", 2<<20)+`"`),
		"giant header":      "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n" + ok,
		"deep":              "HTTP/1.1 200 OK\r\n\r\n" + judged("no action", 1, `,"x":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)),
	} {
		address := raw(t, func(c net.Conn) { c.Read(make([]byte, 64<<10)); io.WriteString(c, answer) })
		p := plugin(t, fmt.Sprintf("url = \"http://%s\"", address))
		v, err := sdktest.Filter(t, p, Manifest(), message(text))
		if err == nil {
			t.Errorf("%s: %s", name, show(t, v, message(text), 0))
		} else if strings.ContainsAny(err.Error(), "\r\n\x00") || len(err.Error()) > 700 {
			t.Errorf("%s: error %q", name, err)
		}
	}
	// It answers although it has not read the message, or never ends to answer.
	early := raw(t, func(c net.Conn) {
		c.Read(make([]byte, 4096))
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(ok), ok)
		<-t.Context().Done() // a close would be a reset
	})
	endless := raw(t, func(c net.Conn) {
		c.Read(make([]byte, 64<<10))
		for io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); ; {
			if _, err := io.WriteString(c, strings.Repeat("{", 1000)); err != nil {
				return
			}
		}
	})
	for _, address := range []string{early, endless} {
		p := plugin(t, fmt.Sprintf("url = \"http://%s\"\nmax_size = \"100MiB\"", address))
		big := message(text + strings.Repeat("0123456789abcd\r\n", 1<<20))
		if v, err := sdktest.Filter(t, p, Manifest(), big); err == nil {
			t.Errorf("passed: %s", show(t, v, big, 0))
		}
	}
}

// raw is a server that does what a test wants with each connection.
func raw(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { f(c); c.Close() }()
		}
	}()
	return l.Addr().String()
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
	stop := make(chan struct{})
	defer close(stop)
	address := raw(t, func(net.Conn) { <-stop })
	for _, settings := range []string{
		fmt.Sprintf("url = \"http://%s\"", address),
		fmt.Sprintf("engine = \"spamassassin\"\naddress = %q", address),
	} {
		p := plugin(t, settings)
		v, err := p.Filter(promised{t.Context(), time.Now().Add(time.Second)}, message(text+strings.Repeat("0123456789abcd\r\n", 1<<17)))
		if err != nil || v.Action != sdk.ActionUnscanned || v.Reason != "timeout" {
			t.Errorf("%v %v", v, err)
		}
	}
}

// A damaged body is not the engine's fault, and no other engine is asked.
func TestBodyDamaged(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(bad, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, settings := range []string{says(t, judged("no action", 1, "")), fmt.Sprintf("engine = \"spamassassin\"\naddress = %q", raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }))} {
		p := plugin(t, settings)
		m := message(text)
		for _, b := range []mail.Body{{Path: bad, Size: 10}, {Path: bad + "gone", Size: 10}} {
			m.Body = b
			v, err := p.Filter(t.Context(), m)
			if err == nil || !strings.Contains(err.Error(), "damaged") && !strings.Contains(err.Error(), "no such file") {
				t.Errorf("%v %v", v, err)
			}
		}
	}
}

// A sender that rspamd wants greylisted waits once, and then passes.
func TestGreylist(t *testing.T) {
	t.Parallel()
	host := sdktest.NewHost(t)
	p := New()
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(says(t, judged("greylist", 5, ""))), Host: host.Handle}); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	p.greylist.now = func() time.Time { return now }
	expect := func(m *mail.Message, want sdk.Action) {
		t.Helper()
		v, err := sdktest.Filter(t, p, Manifest(), m)
		if err != nil || v.Action != want {
			t.Errorf("%v %v, want %s", v, err, want)
		}
	}
	m := message(text)
	expect(m, sdk.ActionTempfail)
	now = now.Add(5*time.Minute - time.Second)
	expect(m, sdk.ActionTempfail)
	now = now.Add(time.Second)
	expect(m, sdk.ActionContinue)
	m.Envelope.Client.Addr = netip.MustParseAddr("192.0.2.200") // of the same network
	expect(m, sdk.ActionContinue)
	m.Envelope.Client.Addr = netip.MustParseAddr("192.0.3.7")
	expect(m, sdk.ActionTempfail)
	m.Envelope.Client.Addr = netip.Addr{} // nobody to wait
	expect(m, sdk.ActionContinue)
}

// Recipients that want the sender's mail get what would be held or marked; they do not get
// what would be refused, and the others get no more than before.
func TestAllowedSender(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		action, policy string
		want           [2]string // allowed, and not
	}{
		{"quarantine", "", [2]string{"continue\n" + original, "quarantine spam, score 9.0 of 15.0, action quarantine\nX-Spam-Flag: YES\r\n" + original}},
		{"add header", "", [2]string{"continue\n" + original, "continue\nX-Spam-Flag: YES\r\n" + original}},
		{"reject", "", [2]string{"reject 554 5.7.1 Message is spam\n" + original, "reject 554 5.7.1 Message is spam\n" + original}},
		{"discard", "", [2]string{"discard spam, score 9.0 of 15.0, action discard\n" + original, "discard spam, score 9.0 of 15.0, action discard\n" + original}},
		{"soft reject", "", [2]string{"tempfail 451 4.7.1 Try again later\n" + original, "tempfail 451 4.7.1 Try again later\n" + original}},
	} {
		p := plugin(t, says(t, judged(tc.action, 9, ""))+"headers = false\n"+tc.policy)
		m := message(text, "no@example.org", "yes@example.org")
		m.Notes = map[string]string{sdk.NoteAllowed: "1"}
		v, err := sdktest.Filter(t, p, Manifest(), m)
		if err != nil {
			t.Fatal(err)
		}
		if got := show(t, v, m, 1); got != tc.want[0] {
			t.Errorf("%s, allowed:\n%q", tc.action, got)
		}
		if got := show(t, v, m, 0); got != tc.want[1] {
			t.Errorf("%s, not allowed:\n%q", tc.action, got)
		}
	}
}
