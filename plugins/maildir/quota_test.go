package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// metered is a plugin with settings, a gateway and a clock of the test's.
func metered(t testing.TB, settings string) (p *Plugin, host *sdktest.Host, now *time.Time, box string) {
	t.Helper()
	data := t.TempDir()
	host = sdktest.NewHost(t)
	p = New()
	if err := p.Configure(t.Context(), sdk.Config{DataDir: data, Hostname: "mx.example.org", Postmaster: "postmaster@example.org", Host: host.Handle, Settings: []byte(settings)}); err != nil {
		t.Fatal(err)
	}
	clock := time.Now()
	p.now = func() time.Time { return clock }
	return p, host, &clock, filepath.Join(data, "mail/example.org/ann")
}

// sized is a delivery of that many bytes in all.
func sized(key string, bytes int) *sdk.Delivery {
	h, _ := mail.SplitMessage([]byte("Subject: " + key + "\r\n\r\n"))
	return &sdk.Delivery{Key: key, Recipient: ann, Fresh: true, Message: &mail.Message{Header: h,
		Body: mail.InlineBody([]byte(strings.Repeat("x", bytes-len(h.Block()))))}}
}

func code(err error) int { return mail.StatusOf(err).Code }

// The limits are exact, in bytes and in messages, over all folders; at RCPT and at delivery.
func TestQuotaLimits(t *testing.T) {
	for _, tt := range []struct {
		settings string
		sizes    []int
		next     int
		want     int
	}{
		{"quota = '1000'", []int{500, 300}, 199, 250},
		{"quota = '1000'", []int{500, 300}, 200, 250},
		{"quota = '1000'", []int{500, 300}, 201, 452},
		{"quota = '1000'", []int{500, 500}, 100, 452},
		{"quota = '1KiB'", nil, 1024, 250},
		{"quota = '1KiB'", nil, 1025, 552},
		{"quota_messages = 3", []int{100, 100}, 100_000, 250},
		{"quota_messages = 3", []int{100, 100, 100}, 100, 452},
		{"quota = '1MiB'\nquota_messages = 1", []int{100}, 100, 452},
		{"", []int{100}, 100_000, 250},
	} {
		p, _, _, box := metered(t, tt.settings)
		for i, n := range tt.sizes {
			d := sized(fmt.Sprint("k", i), n)
			if i%2 == 1 {
				d.Folder, d.Create = "Sub", true
			}
			if err := p.Deliver(t.Context(), d); err != nil {
				t.Fatal(tt, err)
			}
		}
		if got := code(p.Room(t.Context(), ann, int64(tt.next))); got != tt.want {
			t.Errorf("%+v: at RCPT %d", tt, got)
		}
		if got := code(p.Deliver(t.Context(), sized("next", tt.next))); got != tt.want {
			t.Errorf("%+v: at delivery %d", tt, got)
		}
		if left, _ := os.ReadDir(filepath.Join(box, "tmp")); len(left) > 0 {
			t.Errorf("%+v: left in tmp: %v", tt, left)
		}
		// A size that is not known: there is room as long as there is any.
		full := tt.want == 452 && (tt.next == 100)
		if got := code(p.Room(t.Context(), ann, 0)); (got == 452) != full && tt.want != 250 {
			t.Errorf("%+v: of unknown size %d", tt, got)
		}
	}
}

// The account's own quota counts, else the settings'; no answer changes nothing.
func TestQuotaOfAccounts(t *testing.T) {
	p, host, now, _ := metered(t, "quota = '500'")
	set := func(bytes, messages int64) {
		host.Lock()
		defer host.Unlock()
		host.Accounts[ann.Fold()] = sdk.Account{Local: true, Info: &sdk.AccountInfo{Address: ann.Fold(), QuotaBytes: bytes, QuotaMessages: messages}}
		*now = now.Add(limitKeep)
	}
	set(2000, 0)
	if got := code(p.Deliver(t.Context(), sized("k1", 1500))); got != 250 {
		t.Error(got)
	}
	if got := code(p.Deliver(t.Context(), sized("k2", 600))); got != 452 {
		t.Error(got)
	}
	set(0, 3)
	if got := code(p.Deliver(t.Context(), sized("k2", 6000))); got != 250 {
		t.Error(got)
	}
	set(0, 0)
	if got := code(p.Deliver(t.Context(), sized("k3", 100))); got != 452 {
		t.Error(got)
	}
	set(100_000, 0)
	if got := code(p.Room(t.Context(), ann, 1000)); got != 250 {
		t.Error(got)
	}
	host.Handle.Close()
	*now = now.Add(time.Hour)
	if got := code(p.Deliver(t.Context(), sized("k3", 50_000))); got != 250 {
		t.Error("without an answer the last one holds: ", got)
	}
	bob := sized("k4", 600)
	bob.Recipient = mail.MustPath("bob@example.org")
	if got := code(p.Deliver(t.Context(), bob)); got != 552 {
		t.Error("without any answer the settings hold: ", got)
	}
}

// What readers that know nothing of quotas remove is noticed when it matters, and listing the
// mailbox is rare all the same.
func TestQuotaIsRecounted(t *testing.T) {
	p, _, now, box := metered(t, "quota = '1000'")
	for i := range 2 {
		if err := p.Deliver(t.Context(), sized(fmt.Sprint("k", i), 500)); err != nil {
			t.Fatal(err)
		}
	}
	*now = now.Add(time.Minute)
	if got := code(p.Room(t.Context(), ann, 0)); got != 452 {
		t.Fatal(got)
	}
	for _, f := range files(t, box) {
		if isMessage(f) {
			os.Remove(filepath.Join(box, f))
			break
		}
	}
	if got := code(p.Room(t.Context(), ann, 0)); got != 452 {
		t.Error("counted again at once: ", got)
	}
	*now = now.Add(hasty)
	if got := code(p.Deliver(t.Context(), sized("k9", 500))); got != 250 {
		t.Error(got)
	}
	// A file that others have damaged, or that has grown, is made anew.
	file := filepath.Join(box, sizeFile)
	for _, text := range []string{"", "1000S", "what\n1 1\n", "1000S\n1 x\n", "1000S\n", "1000S\n-5 -1\n", "1000S\n" + strings.Repeat("0 0\n", 1500)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := code(p.Room(t.Context(), ann, 0)); got != 452 {
			t.Errorf("%.20q: %d", text, got)
		}
		if b, _ := os.ReadFile(file); string(b) != "1000S\n1000 2\n" {
			t.Errorf("%.20q: %q", text, b)
		}
		*now = now.Add(time.Minute)
	}
	// Another program has limits of its own: we do not fight for the first line.
	if err := os.WriteFile(file, []byte("5000S,7C\n100 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := code(p.Deliver(t.Context(), sized("k10", 500))); got != 250 {
		t.Error(got)
	}
	if b, _ := os.ReadFile(file); string(b) != "5000S,7C\n100 1\n500 1\n" {
		t.Errorf("%q", b)
	}
}

// Deliveries at once do not exceed the quota together.
func TestQuotaOfManyAtOnce(t *testing.T) {
	p, _, _, box := metered(t, "quota = '10000'")
	var wg sync.WaitGroup
	var mu sync.Mutex
	stored := 0
	for i := range 40 {
		wg.Go(func() {
			if err := p.Deliver(t.Context(), sized(fmt.Sprint("k", i), 1000)); err == nil {
				mu.Lock()
				stored++
				mu.Unlock()
			} else if code(err) != 452 {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	sum, err := p.sum(box)
	if stored != 10 || err != nil || sum != (amount{10_000, 10}) {
		t.Errorf("%d stored, %+v, %v", stored, sum, err)
	}
	for root, m := range p.meters.m {
		if m.pending != (amount{}) || m.users != 0 {
			t.Errorf("%s: %+v", root, m)
		}
	}
}

// The owner is told once, and again when it happens again.
func TestQuotaWarning(t *testing.T) {
	p, host, now, box := metered(t, "quota = '10000'")
	key := 0
	deliver := func(bytes int, want int) {
		t.Helper()
		key++
		if err := p.Deliver(t.Context(), sized(fmt.Sprint("k", key), bytes)); err != nil {
			t.Fatal(err)
		}
		host.Lock()
		defer host.Unlock()
		if len(host.Submitted) != want {
			t.Fatalf("after message %d there are %d warnings, want %d", key, len(host.Submitted), want)
		}
	}
	deliver(8949, 0)
	deliver(51, 1)
	deliver(100, 1)
	s := host.Submitted[0]
	if s.Origin != mail.Internal || !s.ReversePath.IsZero() || len(s.Recipients) != 1 || s.Recipients[0].Fold() != ann.Fold() ||
		s.Header.Get("Subject") != "Your mailbox is 90% full" || s.Header.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(s.Body, "8.8 KiB of 9.8 KiB") {
		t.Errorf("%+v\n%s%s", s, s.Header.Block(), s.Body)
	}
	// A new process knows that he was told.
	q := New()
	if err := q.Configure(t.Context(), sdk.Config{DataDir: filepath.Join(box, "../../.."), Hostname: "mx.example.org", Postmaster: "postmaster@example.org", Host: host.Handle, Settings: []byte("quota = '10000'")}); err != nil {
		t.Fatal(err)
	}
	q.now, p = p.now, q
	deliver(100, 1)
	// The warning itself gets in when nothing else does.
	if got := code(p.Deliver(t.Context(), sized("full", 900))); got != 452 {
		t.Error(got)
	}
	w := sized("warning", 900)
	w.Message.Envelope.Origin = mail.Internal
	if got := code(p.Deliver(t.Context(), w)); got != 250 {
		t.Error(got)
	}
	w = sized("long report", 17<<10)
	w.Message.Envelope.Origin = mail.Internal
	if got := code(p.Deliver(t.Context(), w)); got == 250 {
		t.Error("a long one gets in as well")
	}
	for _, f := range files(t, box) {
		if isMessage(f) && strings.Contains(f, ",S=8949") {
			os.Remove(filepath.Join(box, f))
		}
	}
	*now = now.Add(time.Minute)
	if got := code(p.Room(t.Context(), ann, 9000)); got != 452 { // counts again
		t.Error(got)
	}
	deliver(100, 1)
	if _, err := os.Stat(filepath.Join(box, warnedFile)); err == nil {
		t.Error("the mailbox is not full, and still he knows that it is")
	}
	deliver(8000, 2)
	// Without a gateway that takes it there is no marker: it is tried again.
	os.Remove(filepath.Join(box, warnedFile))
	host.Handle.Close()
	key++
	if err := p.Deliver(t.Context(), sized("last", 50)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(box, warnedFile)); err == nil {
		t.Error("nobody was told")
	}
}

func TestQuotaSettings(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "0": 0, "100": 100, "2KiB": 2048, "3 MiB": 3 << 20, "1GiB": 1 << 30, "1TiB": 1 << 40} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || int64(s) != want {
			t.Errorf("%q: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"x", "-1", "1MB", "1.5GiB", "99999999999999TiB", "KiB"} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %d", text, s)
		}
	}
}

func FuzzSizes(f *testing.F) {
	f.Add([]byte("1000S,20C\n100 1\n-5 -1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s sizes
		if !s.parse(text) {
			return
		}
		var again sizes
		if s.total.bytes < 0 || s.total.messages < 0 || !again.parse(s.text()) || again.total != s.total || again.limit != s.limit {
			t.Fatalf("%q: %+v, %q", text, s, s.text())
		}
	})
}
