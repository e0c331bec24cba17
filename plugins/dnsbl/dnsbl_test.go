package dnsbl

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

type rig struct {
	*Plugin
	*fakeDNS
	*clock
	t *testing.T
}

func newRig(t *testing.T, settings string) *rig {
	t.Helper()
	r := &rig{Plugin: New(), fakeDNS: newDNS(t), clock: &clock{now: time.Unix(1_800_000_000, 0)}, t: t}
	r.Plugin.now = r.clock.time
	if err := r.Configure(t.Context(), sdk.Config{Settings: []byte(settings), DNSServers: []string{r.fakeDNS.addr}}); err != nil {
		t.Fatal(err)
	}
	return r
}

func connect(client string) *sdk.Attempt {
	return &sdk.Attempt{Stage: sdk.AtConnect, Envelope: mail.Envelope{Origin: mail.Incoming, Client: mail.Client{Addr: netip.MustParseAddr(client)}}}
}

func mailFrom(client, helo, from string) *sdk.Attempt {
	a := connect(client)
	a.Stage, a.Envelope.Client.Helo = sdk.AtMail, helo
	if from != "" {
		a.Envelope.ReversePath = mail.MustPath(from)
	}
	return a
}

func (r *rig) ask(a *sdk.Attempt) *sdk.Verdict {
	r.t.Helper()
	v, err := sdktest.Gate(r.t, r.Plugin, Manifest(), a)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// said is the reply, or the notes.
func (r *rig) said(a *sdk.Attempt) string {
	r.t.Helper()
	v := r.ask(a)
	if v.Action != sdk.ActionContinue {
		return v.Status.Error()
	}
	text := v.Notes["score"] + " " + v.Notes["lists"]
	if u := v.Notes["unanswered"]; u != "" {
		text += " unanswered " + u
	}
	return strings.TrimSpace(text)
}

func (r *rig) want(want string, a *sdk.Attempt) {
	r.t.Helper()
	if got := r.said(a); got != want {
		r.t.Errorf("%s: %q, want %q", a.Envelope.Client.Addr, got, want)
	}
}

// logged collects the log of a test, which must not be parallel to others.
func logged(t *testing.T) func() string {
	t.Helper()
	var mu sync.Mutex
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return out.Write(b) }), nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return func() string { mu.Lock(); defer mu.Unlock(); return out.String() }
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

const one = "[[list]]\nzone = \"bl.test\"\n"

// A client that is listed is refused at connect with the list's name and words.
func TestRefusesAtConnect(t *testing.T) {
	r := newRig(t, one)
	r.list("bl.test", map[string]string{"192.0.2.7": "127.0.0.2", "2001:db8::7": "127.0.0.2", "192.0.2.8": "127.0.0.2"})
	r.set(func() {
		r.txt["7.2.0.192.bl.test"] = "Spam source,\r\n550 see\thttps://bl.test/?ip=192.0.2.7 \x1b[31m\xff" + strings.Repeat("x", 500)
	})
	v := r.ask(connect("192.0.2.7"))
	if v.Action != sdk.ActionReject || v.Status.Code != 554 || v.Status.EnhancedString() != "5.7.1" ||
		!strings.HasPrefix(v.Status.Text, "Client 192.0.2.7 is listed by bl.test: Spam source, 550 see https://bl.test/?ip=192.0.2.7 [31m xxx") || len(v.Status.Text) > 300 {
		t.Errorf("%+v", v.Status)
	}
	if v.Notes["score"] != "1" || v.Notes["lists"] != "bl.test=1 (client 192.0.2.7: 127.0.0.2)" {
		t.Errorf("%v", v.Notes)
	}
	r.want("554 5.7.1 Client 192.0.2.8 is listed by bl.test", connect("::ffff:192.0.2.8"))
	r.want("554 5.7.1 Client 2001:db8::7 is listed by bl.test", connect("2001:db8::7"))
	if n := r.times("A 7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test"); n != 1 {
		t.Errorf("the nibbles were asked for %d times", n)
	}
	r.want("", connect("192.0.2.9"))
}

// Weights of lists and of single answers add up, and lists of good ones take off.
func TestScore(t *testing.T) {
	r := newRig(t, `reject = 5
tempfail = 3
[[list]]
zone = "a.test"
weight = 2
[[list]]
zone = "b.test"
name = "B"
answers = {"127.0.0.2" = 1.1, "127.0.0.4-127.0.0.7" = 2.2, "127.0.1.0/24" = 4}
[[list]]
zone = "bits.test"
answers = {"&2" = 0.5, "&8" = 3}
weight = 0.25
[[list]]
zone = "wl.test"
weight = -3
`)
	r.list("a.test", map[string]string{"192.0.2.1": "127.0.0.2", "192.0.2.5": "127.0.0.9", "192.0.2.6": "127.0.0.2"})
	r.list("b.test", map[string]string{"192.0.2.1": "127.0.0.2 127.0.0.7", "192.0.2.2": "127.0.0.4 127.0.0.5", "192.0.2.3": "127.0.0.8", "192.0.2.5": "127.0.1.255", "192.0.2.6": "127.0.1.0"})
	r.list("bits.test", map[string]string{"192.0.2.3": "127.0.0.10", "192.0.2.4": "127.0.0.1"})
	r.list("wl.test", map[string]string{"192.0.2.5": "127.0.0.2", "192.0.2.4": "127.0.0.2"})
	for client, want := range map[string]string{
		"192.0.2.1": "554 5.7.1 Client 192.0.2.1 is listed by B",
		"192.0.2.2": "2.2 B=2.2 (client 192.0.2.2: 127.0.0.4 127.0.0.5)",
		"192.0.2.3": "421 4.7.1 Client 192.0.2.3 is listed by bits.test",
		"192.0.2.4": "-2.75 wl.test=-3 (client 192.0.2.4: 127.0.0.2), bits.test=0.25 (client 192.0.2.4: 127.0.0.1)",
		"192.0.2.5": "421 4.7.1 Client 192.0.2.5 is listed by B",
		"192.0.2.6": "554 5.7.1 Client 192.0.2.6 is listed by B",
	} {
		r.want(want, connect(client))
	}
}

// At MAIL the domains are looked up too: of the reverse-path, of HELO, and the client's name
// if it leads back to it.
func TestDomains(t *testing.T) {
	r := newRig(t, `[[list]]
zone = "dbl.test"
of = ["sender", "helo", "name"]
[[list]]
zone = "bl.test"
`)
	r.list("dbl.test", map[string]string{"bad.example": "127.0.1.2", "isp.example": "127.0.1.2", "lies.example": "127.0.1.2"})
	r.list("bl.test", map[string]string{"192.0.2.7": "127.0.0.2"})
	r.want("", connect("192.0.2.1"))
	r.want("550 5.7.1 Sender domain bad.example is listed by dbl.test", mailFrom("192.0.2.1", "mx.example", "a@bad.example"))
	r.want("550 5.7.1 HELO name bad.example is listed by dbl.test", mailFrom("192.0.2.1", "BAD.example.", "a@good.example"))
	r.want("550 5.7.1 Client 192.0.2.7 is listed by bl.test", mailFrom("192.0.2.7", "mx.example", ""))
	r.want("", mailFrom("192.0.2.1", "[192.0.2.1]", ""))
	r.want("", mailFrom("192.0.2.1", "localhost", "a@[192.0.2.1]"))
	r.set(func() {
		r.ptr["2.2.0.192.in-addr.arpa"], r.a["isp.example"] = "isp.example", []string{"192.0.2.2"}
		r.ptr["3.2.0.192.in-addr.arpa"] = "lies.example"
	})
	r.want("550 5.7.1 Client name isp.example is listed by dbl.test", mailFrom("192.0.2.2", "mx.example", "a@good.example"))
	r.want("", mailFrom("192.0.2.3", "mx.example", "a@good.example"))
}

// Where clients may log in they are not refused before they have had the occasion.
func TestRefuseAtMail(t *testing.T) {
	r := newRig(t, "refuse_at = \"mail\"\n"+one)
	r.list("bl.test", map[string]string{"192.0.2.7": "127.0.0.2"})
	r.want("1 bl.test=1 (client 192.0.2.7: 127.0.0.2)", connect("192.0.2.7"))
	r.want("550 5.7.1 Client 192.0.2.7 is listed by bl.test", mailFrom("192.0.2.7", "x.example", ""))
	a := mailFrom("192.0.2.7", "x.example", "")
	a.Envelope.Client.User, a.Envelope.Client.Class = "alice@example.org", mail.Authenticated
	r.want("", a)
	if n := r.times("A 7.2.0.192.bl.test"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestNotAsked(t *testing.T) {
	r := newRig(t, `networks = ["198.51.100.0/24", "2001:db8::/32", "::ffff:198.51.101.0/120"]`+"\n"+one)
	r.list("bl.test", nil)
	for _, client := range []string{"127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.1.1", "fe80::1%eth0", "fd00::1",
		"100.64.0.1", "0.1.2.3", "198.51.100.9", "198.51.101.9", "2001:db8::1", "::ffff:127.0.0.1"} {
		r.set(func() { r.a[reversed(netip.MustParseAddr(client).WithZone(""))+".bl.test"] = []string{"127.0.0.2"} })
		r.want("", connect(client))
	}
	a := connect("192.0.2.7")
	r.set(func() { r.a["7.2.0.192.bl.test"] = []string{"127.0.0.2"} })
	a.Envelope.Client.Class = mail.Relay
	r.want("", a)
	if len(r.fakeDNS.asked) != 0 {
		t.Errorf("asked %v", r.fakeDNS.asked)
	}
}

// Answers are remembered as long as their TTL says, from ten seconds to an hour.
func TestCache(t *testing.T) {
	for ttl, kept := range map[uint32]time.Duration{0: 10 * time.Second, 100: 100 * time.Second, 86400: time.Hour} {
		r := newRig(t, one+"test = \"off\"\n")
		r.set(func() { r.ttl = ttl })
		r.list("bl.test", map[string]string{"192.0.2.7": "127.0.0.2"})
		for i, step := range []struct {
			pass time.Duration
			want int
		}{{0, 1}, {kept - 1, 1}, {1, 2}} {
			r.pass(step.pass)
			r.said(connect("192.0.2.7"))
			if n := r.times("A 7.2.0.192.bl.test"); n != step.want {
				t.Errorf("TTL %d, step %d: asked %d times", ttl, i, n)
			}
		}
		r.said(connect("192.0.2.8"))
		r.pass(120*time.Second - 1) // what its SOA says
		r.said(connect("192.0.2.8"))
		r.pass(1)
		r.said(connect("192.0.2.8"))
		if n := r.times("A 8.2.0.192.bl.test"); n != 2 {
			t.Errorf("what is not listed was asked %d times", n)
		}
	}
	d := newAsker([]string{"192.0.2.1:53"}, time.Second, time.Now)
	for i := range 3 * maxKept {
		d.remember(fmt.Sprint(i), records{until: time.Now().Add(time.Hour)})
	}
	if n := len(d.new) + len(d.old); n > 2*maxKept {
		t.Errorf("%d answers are kept", n)
	}
	if _, ok := d.remembered(fmt.Sprint(3*maxKept - 1)); !ok {
		t.Error("the last one is not")
	}
}

// patience is how long a test waits for what has to happen.
const patience = 60 * time.Second

// Many sessions of one client make one question, and a slow list is waited for once.
func TestAskedOnce(t *testing.T) {
	r := newRig(t, one+"test = \"off\"\n")
	r.list("bl.test", map[string]string{"192.0.2.7": "127.0.0.2"})
	block := make(chan struct{})
	r.set(func() { r.block = block })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if v, err := r.Gate(t.Context(), connect("192.0.2.7")); err != nil || v.Action != sdk.ActionReject {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	select {
	case <-r.held:
	case <-time.After(patience):
		t.Fatal("nobody asked")
	}
	r.set(func() { r.block = nil })
	close(block)
	wg.Wait()
	if n := r.times("A 7.2.0.192.bl.test"); n > 2 { // one may come when the answer is just there
		t.Errorf("asked %d times", n)
	}
}

// A list that does not answer holds nobody up for ever, is left alone after five times, and
// asked again after five minutes; others go on counting.
func TestDeadList(t *testing.T) {
	said := logged(t)
	r := newRig(t, "timeout = \"300ms\"\n[[list]]\nzone = \"dead.test\"\n[[list]]\nzone = \"fails.test\"\n"+one)
	for _, zone := range []string{"dead.test", "fails.test", "bl.test"} {
		r.list(zone, map[string]string{"192.0.2.7": "127.0.0.2"})
	}
	r.set(func() { r.dead["dead.test"], r.fails["fails.test"] = true, true })
	for i := range 7 {
		v := r.ask(connect("192.0.2.7"))
		if v.Action != sdk.ActionReject || v.Notes["unanswered"] != "dead.test, fails.test" || v.Notes["score"] != "1" {
			t.Errorf("%d: %+v", i, v)
		}
		r.settle()
	}
	asked := r.times("A 2.0.0.127.dead.test")
	r.pass(5*time.Minute - 1)
	r.ask(connect("192.0.2.7"))
	if n := r.times("A 2.0.0.127.dead.test"); n != asked {
		t.Error("a list that is left alone was asked")
	}
	for _, zone := range []string{"dead.test", "fails.test"} {
		if n := strings.Count(said(), "msg=\"list is left alone\" list="+zone+" why=\"no answer 5 times in a row"); n != 1 {
			t.Errorf("%s: said %d times:\n%s", zone, n, said())
		}
	}
	r.pass(1)
	r.ask(connect("192.0.2.7")) // still dead: left alone again at once
	r.settle()
	r.set(func() { clear(r.dead); clear(r.fails) })
	if v := r.ask(connect("192.0.2.7")); v.Notes["unanswered"] != "dead.test, fails.test" {
		t.Errorf("%v", v.Notes)
	}
	r.pass(5 * time.Minute)
	if v := r.ask(connect("192.0.2.7")); v.Notes["score"] != "3" || v.Notes["unanswered"] != "" {
		t.Errorf("after it came back: %v", v.Notes)
	}
	if strings.Count(said(), "list answers again") != 2 || strings.Count(said(), "list is left alone") != 2 {
		t.Error(said())
	}
}

// settle waits for tests of lists that outlive the call that began them.
func (r *rig) settle() {
	for _, l := range r.lists {
		l.mu.Lock()
		testing := l.testing
		l.mu.Unlock()
		if testing != nil {
			<-testing
		}
	}
}

// Lists that list everything, or nothing, or say that they do not want to be asked, are not
// believed.
func TestLyingLists(t *testing.T) {
	for name, tt := range map[string]struct {
		lie func(*fakeDNS)
		why string
	}{
		"everything":  {func(f *fakeDNS) { f.a["1.0.0.127.bl.test"] = []string{"127.0.0.2"} }, "it lists 127.0.0.1"},
		"nothing":     {func(f *fakeDNS) { delete(f.a, "2.0.0.127.bl.test") }, "it does not list 127.0.0.2"},
		"sold":        {func(f *fakeDNS) { f.a["2.0.0.127.bl.test"] = []string{"203.0.113.5"} }, "it answers 203.0.113.5"},
		"error codes": {func(f *fakeDNS) { f.a["2.0.0.127.bl.test"] = []string{"127.255.255.254"} }, "does not want to be asked by this resolver (127.255.255.254)"},
		"later sold":  {func(f *fakeDNS) { f.a["7.2.0.192.bl.test"] = []string{"127.0.0.2", "203.0.113.5"} }, "it answers 203.0.113.5"},
		"later codes": {func(f *fakeDNS) { f.a["7.2.0.192.bl.test"] = []string{"127.255.255.255"} }, "does not want to be asked"},
	} {
		t.Run(name, func(t *testing.T) {
			said := logged(t)
			r := newRig(t, one)
			r.list("bl.test", map[string]string{"192.0.2.7": "127.0.0.2"})
			r.set(func() { tt.lie(r.fakeDNS) })
			for range 3 {
				r.want("unanswered bl.test", connect("192.0.2.7"))
			}
			if strings.Count(said(), "list is left alone") != 1 || !strings.Contains(said(), tt.why) {
				t.Error(said())
			}
			r.list("bl.test", map[string]string{"192.0.2.7": "127.0.0.2"})
			r.set(func() { delete(r.a, "1.0.0.127.bl.test") })
			r.pass(time.Hour)
			r.want("554 5.7.1 Client 192.0.2.7 is listed by bl.test", connect("192.0.2.7"))
		})
	}
}

// A list is tested again each hour, without keeping anybody waiting.
func TestTestedAgain(t *testing.T) {
	said := logged(t)
	r := newRig(t, one)
	r.list("bl.test", nil)
	r.want("", connect("192.0.2.7"))
	r.set(func() {
		r.a["1.0.0.127.bl.test"], r.a["8.2.0.192.bl.test"] = []string{"127.0.0.2"}, []string{"127.0.0.2"}
	})
	r.pass(time.Hour)
	r.ask(connect("192.0.2.7"))
	r.settle()
	r.want("unanswered bl.test", connect("192.0.2.8"))
	if !strings.Contains(said(), "it lists 127.0.0.1") {
		t.Error(said())
	}
}

// Lists of names have tests of their own, or none.
func TestOtherTests(t *testing.T) {
	for _, tt := range []struct{ settings, has, want string }{
		{"", "test", "550 5.7.1 Sender domain bad.example is listed by dbl.test"},
		{"", "nothing", "unanswered dbl.test"},
		{`test = "dbltest.example"`, "dbltest.example", "550 5.7.1 Sender domain bad.example is listed by dbl.test"},
		{`test = "off"`, "nothing", "550 5.7.1 Sender domain bad.example is listed by dbl.test"},
	} {
		r := newRig(t, "[[list]]\nzone = \"dbl.test\"\nof = [\"sender\"]\n"+tt.settings)
		r.set(func() {
			r.a[tt.has+".dbl.test"], r.a["bad.example.dbl.test"] = []string{"127.0.1.2"}, []string{"127.0.1.2"}
		})
		r.want(tt.want, mailFrom("192.0.2.1", "mx.example", "a@bad.example"))
	}
}

func TestReversed(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.99": "99.2.0.192", "::ffff:192.0.2.99": "99.2.0.192",
		// RFC 5782 §2.4
		"2001:db8:1:2:3:4:567:89ab": "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2",
	} {
		if got := reversed(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %s", a, got)
		}
	}
}

func TestConfigureRefuses(t *testing.T) {
	for settings, want := range map[string]string{
		``:                                            "there are 0 lists",
		`reject = "never"` + "\n" + one:               `"never" is neither a score nor "off"`,
		`reject = 0` + "\n" + one:                     "that is everybody",
		"reject = 1\ntempfail = 2\n" + one:            "would never happen",
		`refuse_at = "rcpt"` + "\n" + one:             "refuse_at",
		`timeout = "1h"` + "\n" + one:                 "timeout is 1h",
		`networks = ["x"]` + "\n" + one:               `"x" is not a network`,
		one + one:                                     `another one of the name "bl.test"`,
		"[[list]]\nzone = \"\"":                       "zone is not a domain",
		one + `of = ["ip"]`:                           `"ip" is not "client"`,
		one + `of = []`:                               "of is empty",
		one + "of = [\"helo\"]\nweight = -1":          "what anybody can claim",
		one + `answers = {"127.0.0.x" = 1}`:           `"127.0.0.x" is not of the form`,
		one + `answers = {"&3" = 1}`:                  `"&3"`,
		one + `answers = {"10.0.0.1" = 1}`:            `"10.0.0.1"`,
		one + `answers = {"127.0.0.0/7" = 1}`:         `"127.0.0.0/7"`,
		one + `answers = {"127.0.0.9-127.0.0.2" = 1}`: `127.0.0.9-127.0.0.2`,
		one + `weight = 1e9`:                          "weight is out of range",
		one + `wait = 1`:                              `unknown key "list.wait"`,
		one + "name = \"a\\r\\nb\"":                   "name is not",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", settings, err, want)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{"127.0.0.2", "127.0.0.4-127.0.0.7", "127.0.1.0/24", "&8", "&256", "::1", "127.0.0.1/33", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseAnswer(s)
		if err == nil && p.bit == 0 && (!p.matches(p.from) || !p.matches(p.to)) {
			t.Errorf("%q does not match its own ends", s)
		}
		if err == nil {
			p.matches(netip.MustParseAddr("127.0.0.2"))
		}
	})
}
