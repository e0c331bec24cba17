package callahead

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a next hop that a test plays.
type server struct {
	mu     sync.Mutex
	answer func(p mail.Path) mail.Status
	asked  []mail.Path
	now    int // questions under way
	most   int
	began  chan mail.Path // if not nil: told of every question
	hold   chan struct{}  // if not nil: an answer waits for it, or for ctx
}

func (s *server) Ask(ctx context.Context, _ route.Route, rcpts ...mail.Path) []mail.Status {
	s.mu.Lock()
	answer, began, hold := s.answer, s.began, s.hold
	s.asked = append(s.asked, rcpts[0])
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.now--; s.mu.Unlock() }()
	if began != nil {
		began <- rcpts[0]
	}
	res := make([]mail.Status, len(rcpts))
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			res[0] = mail.Temporary(451, 4, 2, "timeout")
			return res
		}
	}
	for i, p := range rcpts {
		if res[i] = answer(p); !res[i].Success() {
			break
		}
	}
	return res
}

func (s *server) says(f func(p mail.Path) mail.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// questions returns how many there were since the last call.
func (s *server) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.asked)
	s.asked = nil
	return n
}

var (
	taken   = mail.OK(250, 1, 5, "ok").WithRemote("behind.test")
	nobody  = mail.Permanent(550, 1, 1, "no").WithRemote("behind.test")
	down    = mail.Temporary(451, 4, 1, "cannot connect")
	behind  = mail.MustDomain("corp.example")
	toThere = route.Route{Key: "smtp:behind", Transport: route.SMTP, Hops: []route.Hop{{Scheme: route.SchemeSMTP, Address: "behind:25"}}}
)

// has takes the named local parts.
func has(names ...string) func(mail.Path) mail.Status {
	return func(p mail.Path) mail.Status {
		for _, n := range names {
			if strings.EqualFold(p.Local, n) {
				return taken
			}
		}
		return nobody
	}
}

func always(s mail.Status) func(mail.Path) mail.Status {
	return func(mail.Path) mail.Status { return s }
}

type rig struct {
	*Knowledge
	t      *testing.T
	server *server
	path   string
	rules  Rules
	client mail.Client

	mu  sync.Mutex
	now time.Time
}

func (r *rig) clock() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now }
func (r *rig) later(d time.Duration) {
	r.mu.Lock()
	r.now = r.now.Add(d)
	r.mu.Unlock()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, server: &server{answer: has("alice", "bob")}, path: filepath.Join(t.TempDir(), "recipients.db"), now: time.Unix(1_900_000_000, 0)}
	r.client = mail.Client{Addr: netip.MustParseAddr("192.0.2.1"), Class: mail.Stranger}
	r.rules = Rules{Domains: map[mail.Domain]route.Route{behind: toThere}, Keep: 7 * 24 * time.Hour, Refresh: 24 * time.Hour,
		KeepUnknown: time.Hour, Timeout: 10 * time.Second, Concurrency: 2, UnknownPerHour: 1000}
	r.open()
	t.Cleanup(func() { r.Close() })
	return r
}

func (r *rig) open() {
	r.t.Helper()
	k, err := Open(Options{Path: r.path, Asker: r.server, Clock: r.clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.Knowledge = k
	k.Reload(r.rules)
}

func (r *rig) restart() {
	r.t.Helper()
	if err := r.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

func (r *rig) ask(address string) string {
	s := r.Recipient(context.Background(), &r.client, mail.MustPath(address))
	if s.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d %s", s.Code, s.EnhancedString())
}

// want asks, and wants an answer and so many questions to the server.
func (r *rig) want(address, answer string, questions int) {
	r.t.Helper()
	if got := r.ask(address); got != answer {
		r.t.Errorf("%s: %q, want %q", address, got, answer)
	}
	r.work.Wait() // what goes on in the background
	if n := r.server.questions(); n != questions {
		r.t.Errorf("%s: %d questions, want %d", address, n, questions)
	}
}

const (
	notThere = "550 5.1.1"
	notKnown = "450 4.2.0"
)

func TestAsksOnce(t *testing.T) {
	r := newRig(t)
	for i := range 3 {
		first := 0
		if i == 0 {
			first = 1
		}
		r.want("alice@corp.example", "", first)
		r.want("nobody@corp.example", notThere, first)
	}
	r.want("ALICE@corp.example", "", 0)
	r.want("NoBody@corp.example", notThere, 0)
}

// TestServerDown: what is known is taken, what is fresh is refused, and nobody guesses.
func TestServerDown(t *testing.T) {
	r := newRig(t)
	r.want("alice@corp.example", "", 1)
	r.want("nobody@corp.example", notThere, 1)
	r.server.says(always(down))
	r.want("alice@corp.example", "", 0)
	r.want("nobody@corp.example", notThere, 0)
	r.want("bob@corp.example", notKnown, 1)
	r.want("carol@corp.example", notKnown, 0) // it rests
	r.later(restAfterFailure)
	r.want("bob@corp.example", notKnown, 1)
	r.later(time.Hour)
	r.want("nobody@corp.example", notKnown, 1) // no longer fresh
	r.later(30 * time.Hour)
	r.want("alice@corp.example", "", 1) // asked behind, and taken all the same
	r.later(r.rules.Keep - 31*time.Hour - restAfterFailure - time.Second)
	r.want("alice@corp.example", "", 1)
	r.later(time.Second)
	r.want("alice@corp.example", notKnown, 0) // known for too long; it rests
	r.later(restAfterFailure)
	r.server.says(has("alice", "bob"))
	r.want("alice@corp.example", "", 1)
	r.want("bob@corp.example", "", 1)
}

func TestRestartKeeps(t *testing.T) {
	r := newRig(t)
	r.want("alice@corp.example", "", 1)
	r.want("nobody@corp.example", notThere, 1)
	r.Learn(mail.MustPath("learned@corp.example"), taken)
	r.server.says(always(down))
	for range 2 {
		r.restart()
		r.want("alice@corp.example", "", 0)
		r.want("learned@corp.example", "", 0)
		r.want("nobody@corp.example", notThere, 0)
		r.want("bob@corp.example", notKnown, 1)
	}
}

func TestRefresh(t *testing.T) {
	r := newRig(t)
	r.want("alice@corp.example", "", 1)
	r.later(r.rules.Refresh - time.Second)
	r.want("alice@corp.example", "", 0)
	r.later(time.Second)
	r.want("alice@corp.example", "", 1)
	r.want("alice@corp.example", "", 0)
	r.server.says(has())
	r.later(r.rules.Refresh)
	r.want("alice@corp.example", "", 1) // the answer comes too late for this one
	r.want("alice@corp.example", notThere, 0)
	r.server.says(has("alice"))
	r.later(r.rules.KeepUnknown - time.Second)
	r.want("alice@corp.example", notThere, 0)
	r.later(time.Second)
	r.want("alice@corp.example", "", 1)
}

func TestLearns(t *testing.T) {
	r := newRig(t)
	r.server.says(always(down))
	learn := func(address string, s mail.Status) { r.Learn(mail.MustPath(address), s) }
	learn("New@corp.example", taken)
	r.want("new@corp.example", "", 0)
	learn("new@corp.example", nobody)
	r.want("new@corp.example", notThere, 0)
	learn("new@corp.example", taken)
	r.want("new@corp.example", "", 0)
	for _, s := range []mail.Status{
		mail.Permanent(552, 2, 2, "full").WithRemote("b"), mail.Permanent(550, 7, 1, "spam").WithRemote("b"), down,
		mail.Permanent(550, 1, 1, "we say so"), mail.Permanent(550, 0, 0, "whatever").WithRemote("b"),
	} {
		learn("new@corp.example", s)
		r.want("new@corp.example", "", 0)
	}
	learn("other@elsewhere.example", taken)
	r.want("other@elsewhere.example", notKnown, 0) // not one of these domains
	// A delivery shows that the server is there again.
	r.want("bob@corp.example", notKnown, 1)
	r.server.says(has("bob"))
	r.want("bob@corp.example", notKnown, 0)
	learn("new@corp.example", taken)
	r.want("bob@corp.example", "", 1)
}

// TestRefusalsThatSayNothing: only "there is no such address" is unknown.
func TestRefusalsThatSayNothing(t *testing.T) {
	for s, want := range map[mail.Status]string{
		mail.Permanent(550, 1, 1, ""): notThere, mail.Permanent(550, 1, 10, ""): notThere, mail.Permanent(550, 0, 0, ""): notThere,
		mail.Permanent(550, 2, 1, ""): notThere, mail.Permanent(551, 1, 6, ""): notThere, mail.Permanent(554, 0, 0, ""): notThere,
		mail.Permanent(552, 2, 2, ""): notKnown, mail.Permanent(552, 0, 0, ""): notKnown, mail.Permanent(550, 7, 1, ""): notKnown, mail.Permanent(554, 7, 1, ""): notKnown,
		mail.Permanent(503, 5, 1, ""): notKnown, mail.Permanent(501, 0, 0, ""): notKnown, mail.Permanent(550, 4, 1, ""): notKnown, mail.Permanent(550, 3, 2, ""): notKnown,
		mail.Temporary(450, 2, 0, ""): notKnown, mail.Temporary(451, 7, 1, ""): notKnown, mail.Temporary(421, 3, 2, ""): notKnown,
	} {
		r := newRig(t)
		r.server.says(always(s.WithRemote("behind.test")))
		if got := r.ask("x@corp.example"); got != want {
			t.Errorf("%s: %q, want %q", s.Error(), got, want)
		}
		r.Close()
		r.open()
	}
}

// TestTakesEverything: a server that takes what nobody has is noticed, and when it does no more.
func TestTakesEverything(t *testing.T) {
	r := newRig(t)
	r.server.says(always(taken))
	r.want("alice@corp.example", "", 1)
	r.want("anything@corp.example", "", 0)
	r.server.says(always(down))
	r.restart()
	r.want("anything-else@corp.example", "", 0)
	r.Learn(mail.MustPath("carol@corp.example"), taken) // proves nothing
	r.later(takesAllFor)
	r.want("anything@corp.example", "", 1) // still believed while it is down
	r.later(restAfterFailure)
	r.server.says(has("alice"))
	r.want("anything@corp.example", "", 1)
	r.want("anything@corp.example", notThere, 1)
	r.want("carol@corp.example", notThere, 1)
	r.want("alice@corp.example", "", 1)
	// Another next hop is another server.
	r.server.says(always(taken))
	r.later(takesAllFor)
	r.want("dave@corp.example", "", 1)
	r.want("anything@corp.example", "", 0)
	other := toThere
	other.Key = "smtp:other"
	r.rules.Domains = map[mail.Domain]route.Route{behind: other}
	r.Reload(r.rules)
	r.server.says(has())
	r.want("eve@corp.example", notThere, 1)
}

// TestOneQuestion: many who ask the same wait for one answer.
func TestOneQuestion(t *testing.T) {
	r := newRig(t)
	r.server.hold, r.server.began = make(chan struct{}), make(chan mail.Path, 100)
	var wg sync.WaitGroup
	answers := make(chan string, 100)
	for range 50 {
		wg.Go(func() { answers <- r.ask("alice@corp.example") })
	}
	<-r.server.began
	close(r.server.hold)
	wg.Wait()
	close(answers)
	for a := range answers {
		if a != "" {
			t.Errorf("one of 50: %q", a)
		}
	}
	if n := r.server.questions(); n != 1 {
		t.Errorf("%d questions", n)
	}
}

// TestSlowServer: no more questions at a time than allowed, and everybody has an answer before the server gives one.
func TestSlowServer(t *testing.T) {
	r := newRig(t)
	r.rules.Timeout = 200 * time.Millisecond
	r.Reload(r.rules)
	r.server.hold = make(chan struct{})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if got := r.ask(fmt.Sprintf("user%d@corp.example", i)); got != notKnown {
				t.Errorf("user%d: %q", i, got)
			}
		})
	}
	wg.Wait()
	if r.server.most > r.rules.Concurrency || r.server.most == 0 {
		t.Errorf("%d questions at a time, the limit is %d", r.server.most, r.rules.Concurrency)
	}
	// A client that gives up does not end the question.
	r.later(restAfterFailure)
	r.rules.Timeout = 10 * time.Second
	r.Reload(r.rules)
	r.server.began = make(chan mail.Path, 1)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan mail.Status)
	go func() { gone <- r.Recipient(ctx, &r.client, mail.MustPath("alice@corp.example")) }()
	<-r.server.began
	cancel()
	if s := <-gone; s != unasked {
		t.Errorf("who gave up got %v", s)
	}
	close(r.server.hold)
	r.work.Wait()
	r.server.questions()
	r.want("alice@corp.example", "", 0)
}

// TestHarvesting: the limit, one below and one above; what is known is not counted.
func TestHarvesting(t *testing.T) {
	r := newRig(t)
	r.rules.UnknownPerHour = 10
	r.Reload(r.rules)
	r.want("alice@corp.example", "", 1)
	for i := 1; i <= 12; i++ {
		want, questions := notThere, 1
		if i > 10 {
			want, questions = "450 4.7.1", 0
		}
		r.want(fmt.Sprintf("guess%d@corp.example", i), want, questions)
	}
	r.want("alice@corp.example", "", 0)
	r.want("guess1@corp.example", notThere, 0)
	r.want("bob@corp.example", "450 4.7.1", 0)
	r.client.Class = mail.Relay
	r.want("bob@corp.example", "", 1)
	r.client = mail.Client{Addr: netip.MustParseAddr("192.0.2.2"), Class: mail.Stranger}
	r.want("guess11@corp.example", notThere, 1)
	r.later(time.Hour)
	r.client.Addr = netip.MustParseAddr("192.0.2.1")
	r.want("guess12@corp.example", notThere, 1)
	// Addresses that exist, and questions without an answer, are not counted.
	r.rules.UnknownPerHour = 2
	r.Reload(r.rules)
	r.server.says(always(mail.Temporary(450, 2, 0, "").WithRemote("b")))
	for i := range 5 {
		r.want(fmt.Sprintf("later%d@corp.example", i), notKnown, 1)
	}
	r.server.says(has("later0", "later1", "later2"))
	for i := range 3 {
		r.want(fmt.Sprintf("later%d@corp.example", i), "", 1)
	}
}

func TestCloseEndsQuestions(t *testing.T) {
	r := newRig(t)
	r.server.hold, r.server.began = make(chan struct{}), make(chan mail.Path, 1)
	answer := make(chan string)
	go func() { answer <- r.ask("alice@corp.example") }()
	<-r.server.began
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if got := <-answer; got != notKnown {
		t.Errorf("who waited got %q", got)
	}
	r.server.hold, r.server.began = nil, nil
	r.server.questions()
	r.open()
	r.want("alice@corp.example", "", 1)
}

// TestRefreshesAreBounded: what is asked in the background takes no more room than there is, and is left
// for later where there is none.
func TestRefreshesAreBounded(t *testing.T) {
	r := newRig(t)
	for i := range 20 {
		r.Learn(mail.MustPath(fmt.Sprintf("user%d@corp.example", i)), taken)
	}
	r.later(r.rules.Refresh)
	r.server.hold = make(chan struct{})
	for i := range 20 {
		if got := r.ask(fmt.Sprintf("user%d@corp.example", i)); got != "" {
			t.Errorf("user%d: %q", i, got)
		}
	}
	close(r.server.hold)
	r.work.Wait()
	if n := r.server.questions(); n != r.rules.Concurrency {
		t.Errorf("%d questions, want %d", n, r.rules.Concurrency)
	}
}
