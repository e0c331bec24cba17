package spam

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// The real rspamd: its actions, and what it was told.
func TestRspamd(t *testing.T) {
	t.Parallel()
	e := peertest.StartRspamd(t) // once: it takes seconds
	t.Run("actions", func(t *testing.T) { actions(t, e) })
	t.Run("scores", func(t *testing.T) { scores(t, e) })
	t.Run("facts", func(t *testing.T) { facts(t, e) })
	t.Run("oversize", func(t *testing.T) { oversize(t, e) })
}

func actions(t *testing.T, e *peertest.Rspamd) {
	p := plugin(t, fmt.Sprintf("url = %q\n", e.URL))
	expect := func(fields, body, want string) *sdk.Verdict {
		t.Helper()
		m := message(fields+strings.TrimSuffix(text, "text\r\n")+body, "b@example.org", "c@example.org")
		v, err := sdktest.Filter(t, p, Manifest(), m)
		if err != nil {
			t.Fatal(err)
		}
		if got := show(t, v, m, 1); !strings.HasPrefix(got, want) {
			t.Errorf("%s\n got %q\nwant %q", fields, got, want)
		}
		return v
	}
	v := expect("", "text\r\n", "continue\nX-Spam-Score: 0.0\r\nX-Spam-Status: No, score=0.0 required=15.0\r\n\ttests=")
	if !strings.Contains(v.Notes["symbols"], "POSTERN_FACTS") {
		t.Errorf("symbols %q", v.Notes["symbols"])
	}
	expect("", peertest.GTUBE+"\r\n", "reject 554 5.7.1 Gtube pattern\n")
	expect("X-Test-Score: 6.5\r\n", "text\r\n", "continue\nX-Spam-Flag: YES\r\nX-Spam-Score: 6.5\r\n")
	if v := expect("X-Test-Score: 9\r\n", "text\r\n", "continue\nX-Spam-Flag: YES\r\n"); v.Notes["action"] != "rewrite subject" {
		t.Errorf("notes %v", v.Notes)
	}
	if got := show(t, v, message(text), 0); strings.Contains(got, "[spam]") {
		t.Error(got)
	}
	expect("X-Test-Score: 15\r\n", "text\r\n", "reject 554 5.7.1 Message is spam\n")
	expect("X-Test-Action: soft reject\r\nX-Test-Message: slow down\r\n", "text\r\n", "tempfail 451 4.7.1 slow down\n")
	expect("X-Test-Action: quarantine\r\n", "text\r\n", "quarantine spam, score ")
	expect("X-Test-Action: discard\r\n", "text\r\n", "discard spam, score ")
	v = expect("X-Test-Milter: 1\r\nX-Remove-Me: 1\r\nX-Remove-Me: 2\r\n", "text\r\n", "continue\n")
	m := message("X-Test-Milter: 1\r\nX-Remove-Me: 1\r\nX-Remove-Me: 2\r\n" + text)
	if got := show(t, v, m, 0); strings.Contains(got, "X-Remove-Me") || !strings.Contains(got, "X-Rspamd-Test: yes\r\n") {
		t.Errorf("fields of rspamd: %q", got)
	}
}

// scores: with thresholds of our own rspamd's actions are done, too.
func scores(t *testing.T, e *peertest.Rspamd) {
	for _, tc := range []struct{ settings, fields, body, want, decided string }{
		{"quarantine = 10", "X-Test-Action: quarantine\r\n", "", "quarantine", "action"},
		{"quarantine = 10", "X-Test-Action: reject\r\n", "", "reject", "action"},
		{"quarantine = 10\nreject = 20", "", peertest.GTUBE, "reject", "action"},
		{"quarantine = 10\nreject = 'off'", "", peertest.GTUBE, "quarantine", "action"},
		{"quarantine = 10", "X-Test-Score: 10\r\n", "", "quarantine", "score"}, // rewrite subject
		{"reject = 10", "X-Test-Score: 10\r\n", "", "reject", "score"},
		{"quarantine = 10\nreject = 20", "X-Test-Action: soft reject\r\n", "", "tempfail", "action"},
		{"quarantine = 10", "", "", "continue", ""},
	} {
		p := plugin(t, fmt.Sprintf("url = %q\n%s", e.URL, tc.settings))
		v, err := sdktest.Filter(t, p, Manifest(), message(tc.fields+text+tc.body+"\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if v.Action.String() != tc.want || v.Notes["decided"] != tc.decided {
			t.Errorf("%s, %s%s: %s, notes %v scores %v", tc.settings, tc.fields, tc.body, v.Action, v.Notes, v.Scores)
		}
	}
}

// facts: rspamd knows of the envelope what the gateway does.
func facts(t *testing.T, e *peertest.Rspamd) {
	t.Helper()
	seen := make(chan string, 1)
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		on, _ := http.NewRequest(r.Method, e.URL+r.URL.Path, r.Body)
		on.Header, on.ContentLength = r.Header, r.ContentLength
		resp, err := http.DefaultClient.Do(on)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		seen <- string(b)
		w.Write(b)
	}))
	defer between.Close()
	p := plugin(t, fmt.Sprintf("url = %q\n", between.URL))
	m := message(text, "b@example.org", "c@example.org")
	m.Envelope.Client.User = "alice@example.org"
	if _, err := sdktest.Filter(t, p, Manifest(), m); err != nil {
		t.Fatal(err)
	}
	got := <-seen
	for _, fact := range []string{"from=a@example.net", "rcpt=b@example.org", "rcpt=c@example.org", "ip=192.0.2.7", "helo=mail.example.net",
		"host=out.example.net", "user=alice@example.org", "qid=0c1f3k9w2m4xq", fmt.Sprintf("size=%d", len(text))} {
		if !strings.Contains(got, `"`+fact+`"`) {
			t.Errorf("rspamd was not told %s: %s", fact, got)
		}
	}
	for n := range 1000 {
		m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: mail.MustPath(fmt.Sprintf("%060d@%s.example.org", n, strings.Repeat("x", 60)))})
	}
	if _, err := sdktest.Filter(t, p, Manifest(), m); err != nil {
		t.Fatalf("1000 long recipients: %v", err)
	}
	<-seen
	m.Envelope.Recipients = m.Envelope.Recipients[:1]
	m.Envelope.ReversePath = mail.Path{}
	if _, err := sdktest.Filter(t, p, Manifest(), m); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; !strings.Contains(got, `"from="`) {
		t.Errorf("null reverse-path: %s", got)
	}
}

// The real spamd, over both kinds of sockets.
func TestSpamAssassin(t *testing.T) {
	t.Parallel()
	e := peertest.StartSpamd(t)
	for _, address := range []string{e.Address, "unix:" + e.Socket} {
		p := plugin(t, fmt.Sprintf("engine = \"spamassassin\"\naddress = %q\nquarantine = 7\nreject = 100\n", address))
		for subject, want := range map[string]string{
			"x":             "continue\nX-Spam-Score: 0.0\r\nX-Spam-Status: No, score=0.0 required=5.0\r\n\ttests=none\r\n",
			"spam-3":        "continue\nX-Spam-Score: 3.0\r\nX-Spam-Level: ***\r\nX-Spam-Status: No, score=3.0 required=5.0\r\n\ttests=POSTERN_THREE\r\n",
			"spam-7":        "quarantine spam, score 7.0 of 5.0\nX-Spam-Flag: YES\r\n",
			"spam-3 spam-7": "quarantine spam, score 10.0 of 5.0\n",
		} {
			m := message(strings.Replace(text, "Subject: x", "Subject: "+subject, 1))
			v, err := sdktest.Filter(t, p, Manifest(), m)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(t, v, m, 0); !strings.HasPrefix(got, want) {
				t.Errorf("%s:\n got %q\nwant %q", subject, got, want)
			}
		}
		v, err := sdktest.Filter(t, p, Manifest(), message(text+peertest.GTUBE)) // without an end of line
		if err != nil || v.Action != sdk.ActionReject {
			t.Errorf("GTUBE: %v %v", v, err)
		}
	}
}

// The next rspamd is asked when one hangs or is gone.
func TestRspamdFailover(t *testing.T) {
	t.Parallel()
	a, b := peertest.StartRspamd(t), peertest.StartRspamd(t)
	p := plugin(t, fmt.Sprintf("url = [%q, %q]\n", a.URL, b.URL))
	limit := 20 * time.Second // half of it for who hangs: the other one has ten seconds
	expect := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		v, err := p.Filter(ctx, message(text+peertest.GTUBE+"\r\n"))
		got := fmt.Sprint(err)
		if err == nil {
			got = v.Action.String() + v.Reason
		}
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	expect("reject")
	a.Freeze()
	expect("reject")
	b.Freeze()
	limit = 2 * time.Second
	expect("unscannedtimeout")
	limit = 20 * time.Second
	a.Stop()
	b.Stop()
	expect("no engine judged the message: ")
	b.Restart()
	expect("reject")
}

// oversize: of a large message rspamd sees header, structure and the beginning of the texts;
// spam there is found.
func oversize(t *testing.T, e *peertest.Rspamd) {
	attachment := strings.Repeat("QUJD\r\n", 2<<20)
	large := func(part string) string {
		return "From: a@example.net\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
			attachment + "--b\r\nContent-Type: text/plain\r\n\r\n" + part + "\r\n--b--\r\n"
	}
	for _, tc := range []struct{ more, text, want, scanned string }{
		{"", large("text"), "continue", "head"},
		{"", large(peertest.GTUBE), "reject", "head"}, // behind 12 MB
		{"oversize = 'unscanned'", large(peertest.GTUBE), "unscanned", ""},
		{"max_size = '20MiB'", large(peertest.GTUBE), "reject", ""},
		{"", text + strings.Repeat("0123456789abcd\r\n", 1<<19), "continue", "head"},
		{"", "X: " + strings.Repeat("x\r\n ", 1<<18) + "\r\n" + large("text"), "unscanned", ""}, // header of 1 MiB
	} {
		p := plugin(t, fmt.Sprintf("url = %q\n%s", e.URL, tc.more))
		v, err := sdktest.Filter(t, p, Manifest(), message(tc.text))
		if err != nil {
			t.Errorf("%.40s: %v", tc.text, err)
			continue
		}
		if v.Action.String() != tc.want || v.Notes["scanned"] != tc.scanned {
			t.Errorf("%s %d bytes: %s %s %v", tc.more, len(tc.text), v.Action, v.Reason, v.Notes)
		}
	}
}

// max_size is the largest message that is sent whole.
func TestMaxSize(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]sdk.Action{minSize - 1: sdk.ActionContinue, minSize: sdk.ActionContinue, minSize + 1: sdk.ActionUnscanned} {
		p := plugin(t, says(t, judged("no action", 1, ""))+fmt.Sprintf("max_size = %d\noversize = 'unscanned'", minSize))
		v, err := sdktest.Filter(t, p, Manifest(), message(text+strings.Repeat("x", size-len(text))))
		if err != nil || v.Action != want || want == sdk.ActionUnscanned && v.Reason != "too large" {
			t.Errorf("%d: %v %v", size, v, err)
		}
	}
}

// What is left of a large message has all its parts, in little.
func TestHead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcd\r\n", 1<<16)
	s := "From: a@b.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n" + long +
		"--o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\nContent-Type: text/plain\r\n\r\nshort\r\n--i\r\nContent-Type: text/html\r\n\r\n" + long + "\r\n--i--\r\n" + long +
		"\r\n--o\r\nContent-Type: image/png; name=x.png\r\n\r\n" + long +
		"\r\n--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\n" + long +
		"\r\n--o--\r\n" + long
	c, err := head(message(s))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.open()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(r)
	want := "From: a@b.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n" +
		"--o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\nContent-Type: text/plain\r\n\r\nshort\r\n--i\r\nContent-Type: text/html\r\n\r\n" + long[:maxText] + cutMark + "\r\n--i--\r\n" +
		"\r\n--o\r\nContent-Type: image/png; name=x.png\r\n\r\n" +
		"\r\n--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\n" + long[:maxText] + cutMark +
		"\r\n--o--\r\n"
	if string(b) != want || int64(len(b)) != c.size {
		t.Errorf("%d bytes, want %d:\n%s", len(b), len(want), strings.ReplaceAll(string(b), long[:maxText], "..."))
	}
	parts := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", maxParts+1)
	if _, err := head(message(parts)); err != errTooLarge {
		t.Errorf("%d parts: %v", maxParts+1, err)
	}
}

// An engine sees all parts of what is left of a message, as those who read the message do.
func FuzzHead(f *testing.F) {
	f.Add("Content-Type: multipart/mixed; boundary=o\r\n\r\nx\r\n--o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\n\r\na\r\n--i--\r\nx\r\n" +
		"--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nb\r\n--o\r\nContent-Type: image/png\r\n\r\nx\r\n--o--\r\ny")
	f.Add("Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--o\r\nContent-Type: a/b\r\n\r\n--o--")
	parts := func(t *testing.T, m *mail.Message) (list []string, defects mime.Defect) {
		tree, err := mime.Walk(m.Header, m.Body, mime.Limits{Parts: maxParts, Headers: maxHead})
		if err != nil {
			t.Fatal(err)
		}
		for p := range tree.All {
			list = append(list, fmt.Sprintf("%d %s %q", p.Depth, p.Type, strings.TrimRight(string(p.Header.Block()), "\r\n")))
		}
		return list, tree.Defects
	}
	f.Fuzz(func(t *testing.T, s string) {
		m := message(strings.ReplaceAll(strings.NewReplacer("\r", "", "\x00", "").Replace(s), "\n", "\r\n"))
		c, err := head(m)
		if err == errTooLarge {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.open()
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		if len(b) > maxHead || int64(len(b)) != c.size {
			t.Fatalf("%d bytes, of %d", len(b), c.size)
		}
		want, defects := parts(t, m)
		if got, _ := parts(t, message(string(b))); defects&mime.Ambiguous == 0 && !slices.Equal(got, want) {
			t.Fatalf("%q became\n%q:\n%q, want\n%q", s, b, got, want)
		}
	})
}
