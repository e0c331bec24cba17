package reinject

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/sdk/mail"
)

type rig struct {
	*Desk
	t   *testing.T
	dir string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	sp, err := spool.Open(spool.Options{Dir: r.dir, Threshold: 100})
	if err != nil {
		t.Fatal(err)
	}
	r.Desk = New(Options{Spool: sp, Log: slog.New(slog.DiscardHandler)}, Limits{Header: 1000, Body: 500})
	return r
}

func paths(ss ...string) []mail.Path {
	var out []mail.Path
	for _, s := range ss {
		out = append(out, mail.MustPath(s))
	}
	return out
}

// back brings a message back and returns the code of the reply.
func (r *rig) back(text string, to ...string) int {
	r.t.Helper()
	return mail.StatusOf(r.Receive(r.t.Context(), envelope(to...), strings.NewReader(text))).Code
}

func envelope(to ...string) *mail.Envelope {
	e := &mail.Envelope{ReversePath: mail.MustPath("from@a.test")}
	for _, p := range paths(to...) {
		e.Recipients = append(e.Recipients, mail.Recipient{Path: p})
	}
	return e
}

func (r *rig) files() int {
	r.t.Helper()
	list, err := os.ReadDir(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	return len(list)
}

func with(w *Wait, rest string) string { return mail.ReinjectField + ": " + w.Token() + "\r\n" + rest }

// What comes back is given to who waits for it, once, without the token.
func TestComesBack(t *testing.T) {
	r := newRig(t)
	w, other := r.Await(paths("a@x.test", "B@x.test")), r.Await(paths("a@x.test"))
	defer other.Close()
	large := strings.Repeat("x", 200) + "\r\n"
	if c := r.back("X-New: 1\r\n"+with(w, "Subject: s\r\n\r\n"+large), "b@X.test", "new@x.test", "b@x.test"); c != 250 {
		t.Fatal(c)
	}
	if c := r.back(with(w, "Subject: t\r\n\r\nsmall\r\n"), "a@x.test"); c != 250 {
		t.Fatal(c)
	}
	got := w.Take()
	if len(got) != 2 || len(other.Take()) != 0 {
		t.Fatalf("%d came back", len(got))
	}
	if e := got[0].Envelope; e.ReversePath.String() != "from@a.test" || len(e.Recipients) != 2 || e.Recipients[1].Path != mail.MustPath("new@x.test") {
		t.Errorf("envelope %+v", e)
	}
	for i, want := range []string{"X-New: 1\r\nSubject: s\r\n\r\n" + large, "Subject: t\r\n\r\nsmall\r\n"} {
		rc, err := got[i].Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || string(text) != want {
			t.Errorf("message %d is %q, %v", i, text, err)
		}
	}
	if r.files() != 1 {
		t.Errorf("%d files", r.files())
	}
	w.Close()
	w.Close()
	if r.files() != 0 || r.Waiting() != 0 {
		t.Errorf("%d files, %d waits are left", r.files(), r.Waiting())
	}
}

// S-17: nothing is taken that nobody waits for, whoever brings it.
func TestS17Refused(t *testing.T) {
	r := newRig(t)
	w := r.Await(paths("a@x.test", "b@x.test"))
	over := r.Await(paths("a@x.test"))
	over.Take()
	closed := r.Await(paths("a@x.test"))
	closed.Close()
	body := "Subject: s\r\n\r\n" + strings.Repeat("x", 150) + "\r\n"
	for name, c := range map[string]struct {
		text string
		to   []string
		code int
	}{
		"no token":            {body, []string{"a@x.test"}, 550},
		"in the body":         {"Subject: s\r\n\r\n" + with(w, "x\r\n"), []string{"a@x.test"}, 550},
		"after no field":      {"Subject: s\r\nnot a field\r\n" + with(w, "\r\nx\r\n"), []string{"a@x.test"}, 550},
		"wrong":               {mail.ReinjectField + ": " + strings.Repeat("A", 26) + "\r\n" + body, []string{"a@x.test"}, 550},
		"empty":               {mail.ReinjectField + ":\r\n" + body, []string{"a@x.test"}, 550},
		"half":                {mail.ReinjectField + ": " + w.Token()[:13] + "\r\n" + body, []string{"a@x.test"}, 550},
		"two":                 {with(w, with(w, body)), []string{"a@x.test"}, 550},
		"two, of two":         {with(w, with(over, body)), []string{"a@x.test"}, 550},
		"too late":            {with(over, body), []string{"a@x.test"}, 550},
		"far too late":        {with(closed, body), []string{"a@x.test"}, 550},
		"for somebody else":   {with(w, body), []string{"c@x.test"}, 550},
		"body too large":      {with(w, "\r\n"+strings.Repeat("x", 499)+"\r\n"), []string{"a@x.test"}, 552},
		"header too large":    {with(w, "X: "+strings.Repeat("x", 1000)+"\r\n"+body), []string{"a@x.test"}, 552},
		"no message whatever": {"", []string{"a@x.test"}, 550},
	} {
		if code := r.back(c.text, c.to...); code != c.code {
			t.Errorf("%s: %d, want %d", name, code, c.code)
		}
	}
	// A message that breaks off is none: the recipient may still come back.
	broken := io.MultiReader(strings.NewReader(with(w, body)), iotest.ErrReader(errors.New("gone")))
	if err := r.Receive(t.Context(), envelope("a@x.test"), broken); err == nil {
		t.Error("half a message was taken")
	}
	if r.files() != 0 {
		t.Errorf("%d files are left", r.files())
	}
	if c := r.back(with(w, "\r\n"+strings.Repeat("x", 498)+"\r\n"), "a@x.test"); c != 250 {
		t.Errorf("as large as it may be: %d", c)
	}
	// Twice is once too often, also beside one that is awaited.
	if c := r.back(with(w, body), "a@x.test"); c != 550 {
		t.Errorf("the same again: %d", c)
	}
	if c := r.back(with(w, body), "b@x.test", "a@x.test"); c != 550 {
		t.Errorf("one of two again: %d", c)
	}
	if c := r.back(with(w, body), "b@x.test"); c != 250 {
		t.Errorf("the other: %d", c)
	}
	if n := len(w.Take()); n != 2 {
		t.Errorf("%d came back", n)
	}
	w.Close()
	if r.files() != 0 || r.Waiting() != 0 {
		t.Errorf("%d files, %d waits are left", r.files(), r.Waiting())
	}
}

// A wait that ends while a message comes in gets all of it or nothing.
func TestEndsMeanwhile(t *testing.T) {
	r := newRig(t)
	w := r.Await(paths("a@x.test"))
	pr, pw := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- mail.StatusOf(r.Receive(t.Context(), envelope("a@x.test"), pr)).Code
		pr.Close() // it need not read on
	}()
	fmt.Fprint(pw, with(w, "\r\n"+strings.Repeat("x", 150)))
	if n := len(w.Take()); n != 0 {
		t.Errorf("%d came back", n)
	}
	w.Close()
	fmt.Fprint(pw, "\r\n")
	pw.Close()
	if c := <-code; c != 550 {
		t.Errorf("reply %d", c)
	}
	if r.files() != 0 {
		t.Error("a file is left")
	}
}

// What one wait may bring into memory has a bound; a reload moves the limits.
func TestLimits(t *testing.T) {
	r := newRig(t)
	r.Reload(Limits{Header: 1 << 20, Body: 100})
	var to []string
	for i := range 20 {
		to = append(to, fmt.Sprintf("r%d@x.test", i))
	}
	w := r.Await(paths(to...))
	defer w.Close()
	field := "X: " + strings.Repeat("x", 1<<20-100) + "\r\n"
	taken := 0
	for _, one := range to {
		switch c := r.back(with(w, field+"\r\n"), one); c {
		case 250:
			taken++
		case 452:
		default:
			t.Fatal(c)
		}
	}
	if taken != 16 {
		t.Errorf("%d taken", taken)
	}
}

// Many waits at once get what is theirs.
func TestConcurrent(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			to := fmt.Sprintf("r%d@x.test", i)
			w := r.Await(paths(to))
			defer w.Close()
			if c := r.back(with(w, "Subject: "+to+"\r\n\r\n"), to); c != 250 {
				t.Errorf("reply %d", c)
			}
			if got := w.Take(); len(got) != 1 || got[0].Header.Get("Subject") != to {
				t.Errorf("%d came back", len(got))
			}
		})
	}
	wg.Wait()
	if r.Waiting() != 0 {
		t.Errorf("%d wait", r.Waiting())
	}
}
