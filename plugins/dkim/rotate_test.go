package dkim

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// fakeDNS is a DNS that the test changes.
type fakeDNS struct {
	sync.Mutex
	texts map[string]string
	down  bool
	asked int
}

func (d *fakeDNS) LookupTXT(_ context.Context, name string) ([]string, error) {
	d.Lock()
	defer d.Unlock()
	d.asked++
	if d.down {
		return nil, &net.DNSError{Name: name, IsTemporary: true}
	}
	if v, ok := d.texts[name]; ok {
		return []string{v}, nil
	}
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}

// rotation is a plugin whose DNS and clock the test has in its hands.
type rotation struct {
	t    testing.TB
	p    *Plugin
	ring *Keyring
	dns  *fakeDNS
	data string
	dir  string
	now  time.Time
	k    *keeper
	log  bytes.Buffer
	set  string
}

func newRotation(t testing.TB, settings string, keys ...string) *rotation {
	t.Helper()
	r := &rotation{t: t, dns: &fakeDNS{texts: make(map[string]string)}, data: t.TempDir(), now: time.Now(), set: "domains = ['example.org']\n" + settings}
	r.dir = filepath.Join(r.data, "dkim")
	for _, key := range keys {
		selector, algorithm, _ := strings.Cut(key, "=")
		_, rec, err := Generate(r.dir, org, selector, algorithm)
		if err != nil {
			t.Fatal(err)
		}
		r.dns.texts[rec.Name] = rec.Value
	}
	r.restart()
	return r
}

// restart is a new process of the plugin.
func (r *rotation) restart() {
	r.t.Helper()
	r.p = New()
	r.p.now, r.p.resolver, r.p.log = func() time.Time { return r.now }, r.dns, slog.New(slog.NewTextHandler(&r.log, nil))
	c := sdk.Config{Settings: []byte(r.set), DataDir: r.data}
	if err := r.p.Configure(r.t.Context(), c); err != nil {
		r.t.Fatal(err)
	}
	r.k = r.p.keeper()
	var err error
	if r.ring, err = Open(c); err != nil {
		r.t.Fatal(err)
	}
	r.ring.resolver, r.ring.now = r.dns, r.p.now
}

// round is what the plugin does every now and then; it returns what it logged.
func (r *rotation) round() string {
	r.t.Helper()
	r.log.Reset()
	r.p.round(r.t.Context(), r.k)
	if strings.Contains(r.log.String(), "level=ERROR") {
		r.t.Error(r.log.String())
	}
	return r.log.String()
}

func (r *rotation) rotate() []KeyStatus {
	r.t.Helper()
	made, err := r.ring.Rotate(r.t.Context(), org, "")
	if err != nil {
		r.t.Fatal(err)
	}
	return made
}

func (r *rotation) publish(k KeyStatus) { r.dns.texts[k.Record.Name] = k.Record.Value }

// signs wants the message to be signed with these selectors, so that it verifies.
func (r *rotation) signs(selectors ...string) {
	r.t.Helper()
	out, v := (&rig{Plugin: r.p}).signed(r.t, plain)
	var want []string
	for _, s := range selectors {
		want = append(want, "s="+s)
	}
	for i, part := range strings.Split(v.Notes["signed"], ", ") {
		if len(strings.Split(v.Notes["signed"], ", ")) != len(want) || !strings.Contains(part, want[i]+" ") {
			r.t.Fatalf("signed with %q, want %q", v.Notes["signed"], want)
		}
	}
	vs := (&rig{dns: r.dns.texts}).verify(r.t, out)
	if len(vs) != len(selectors) {
		r.t.Fatalf("%d signatures", len(vs))
	}
	for i, v := range vs {
		if v.Err != nil {
			r.t.Fatalf("signature %d: %v", i, v.Err)
		}
	}
}

// unsigned wants the message to pass as it is, with a note that names the selectors.
func (r *rotation) unsigned(selectors ...string) {
	r.t.Helper()
	var names []string
	for _, s := range selectors {
		names = append(names, s+"._domainkey.example.org")
	}
	out, v := (&rig{Plugin: r.p}).signed(r.t, plain)
	if want := "the DNS does not have our key under " + strings.Join(names, ", "); out != plain || v.Notes["unsigned"] != want {
		r.t.Fatalf("notes are %v, want %q, in\n%s", v.Notes, want, out)
	}
}

// states are the keys with their states and what the DNS has.
func (r *rotation) states() string {
	r.t.Helper()
	all, err := r.ring.Status(r.t.Context(), nil, true)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, k := range all {
		out = append(out, strings.TrimRight(k.Selector+" "+k.State+" "+k.DNS, " "))
	}
	return strings.Join(out, ", ")
}

func (r *rotation) want(states string) {
	r.t.Helper()
	if got := r.states(); got != states {
		r.t.Fatalf("keys are %q, want %q", got, states)
	}
}

// The whole life of a key: it is made, waits for the DNS, is used, is superseded, has its
// overlap, is retired, and is forgotten when its record is gone.
func TestRotation(t *testing.T) {
	r := newRotation(t, "", "postern=rsa")
	r.now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	r.signs("postern")
	r.round()
	r.want("postern signing published")
	made := r.rotate()
	if len(made) != 1 || made[0].Selector != "postern-20260501" || made[0].State != "waiting" || made[0].DNS != "missing" || made[0].Algorithm != "rsa-sha256" {
		t.Fatalf("%+v", made)
	}
	if again := r.rotate(); len(again) != 1 || again[0].Record != made[0].Record {
		t.Errorf("a second time: %+v", again)
	}
	if log := r.round(); !strings.Contains(log, "the dns does not have a dkim key") || !strings.Contains(log, "postern-20260501._domainkey.example.org") {
		t.Errorf("no warning: %s", log)
	}
	r.signs("postern")
	if log := r.round(); log != "" {
		t.Errorf("warned again at once: %s", log)
	}
	r.now = r.now.Add(repeat)
	if log := r.round(); !strings.Contains(log, "does not have") {
		t.Errorf("not warned again: %q", log)
	}
	r.restart() // before anything is known of the DNS
	r.signs("postern")
	r.publish(made[0])
	if log := r.round(); !strings.Contains(log, "signing with a new dkim key") {
		t.Errorf("log: %s", log)
	}
	r.signs("postern-20260501")
	r.want("postern-20260501 signing published, postern overlap published")
	r.dns.down = true // known from before, also after a restart
	r.restart()
	r.signs("postern-20260501")
	r.round()
	r.signs("postern-20260501")
	r.dns.down = false
	r.now = r.now.Add(7*24*time.Hour - time.Second)
	r.round()
	r.want("postern-20260501 signing published, postern overlap published")
	r.now = r.now.Add(time.Second)
	if log := r.round(); !strings.Contains(log, "can be removed") || !strings.Contains(log, "name=postern._domainkey.example.org") {
		t.Errorf("log: %s", log)
	}
	r.want("postern-20260501 signing published, postern retired")
	if _, err := os.Stat(filepath.Join(r.dir, "retired", "example.org.postern.pem")); err != nil {
		t.Error(err)
	}
	r.restart()
	r.signs("postern-20260501")
	delete(r.dns.texts, "postern._domainkey.example.org")
	if log := r.round(); !strings.Contains(log, "is gone") {
		t.Errorf("log: %s", log)
	}
	r.want("postern-20260501 signing published")
}

// A record that goes away again is not signed for, as long as there is another.
func TestFallsBack(t *testing.T) {
	r := newRotation(t, "", "postern=ed25519")
	r.now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	r.round()
	made := r.rotate()[0]
	r.publish(made)
	r.round()
	r.signs(made.Selector)
	delete(r.dns.texts, made.Record.Name)
	r.round()
	r.signs("postern")
	// The overlap begins anew.
	r.now = r.now.Add(30 * 24 * time.Hour)
	r.round()
	r.want(made.Selector + " waiting missing, postern signing published")
	r.publish(made)
	r.round()
	r.signs(made.Selector)
	r.want(made.Selector + " signing published, postern overlap published")
	// A record with another key is none.
	r.dns.texts[made.Record.Name] = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	if log := r.round(); !strings.Contains(log, "another dkim key") {
		t.Errorf("log: %s", log)
	}
	r.signs("postern")
	// With no key in the DNS at all mail leaves unsigned, and everybody hears of it.
	r.dns.texts = map[string]string{}
	if log := r.round(); !strings.Contains(log, "mail is not signed until the dns has the dkim key") {
		t.Errorf("log: %s", log)
	}
	r.unsigned("postern")
	all, err := r.ring.Status(t.Context(), nil, true)
	if err != nil || len(all) != 2 || !all[0].Fault() || !all[1].Fault() {
		t.Errorf("%+v, %v", all, err)
	}
	r.publish(made)
	r.round()
	r.signs(made.Selector)
}

// The first key of a domain signs once the DNS shows it, without a restart, and not while the
// DNS says that it is not there or has another key.
func TestFirstKey(t *testing.T) {
	for name, there := range map[string]string{"nothing": "", "another": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "revoked": "v=DKIM1; p=", "no key": "hello"} {
		t.Run(name, func(t *testing.T) {
			r := newRotation(t, "", "postern=rsa")
			record := r.dns.texts["postern._domainkey.example.org"]
			r.dns.texts = map[string]string{"postern._domainkey.example.org": there}
			if there == "" {
				clear(r.dns.texts)
			}
			r.restart()
			r.unsigned("postern") // from the first message on
			for range 2 {
				if log := r.round(); !strings.Contains(log, "mail is not signed until the dns has the dkim key") || !strings.Contains(log, "name=postern._domainkey.example.org") {
					t.Errorf("log: %s", log)
				}
				r.unsigned("postern")
				r.dns.down = true // what it said before counts, after a restart too
				r.round()
				r.unsigned("postern")
				r.restart()
				r.unsigned("postern")
				r.dns.down = false
			}
			all, err := r.ring.Status(t.Context(), nil, true)
			if err != nil || len(all) != 1 || all[0].State != "waiting" || !all[0].Unsigned || !all[0].Fault() {
				t.Errorf("%+v, %v", all, err)
			}
			if all, err = r.ring.Status(t.Context(), nil, false); err != nil || !all[0].Unsigned || all[0].Fault() {
				t.Errorf("without the DNS: %+v, %v", all, err)
			}
			r.dns.texts["postern._domainkey.example.org"] = record
			if log := r.round(); !strings.Contains(log, "the dns shows a dkim key") {
				t.Errorf("log: %s", log)
			}
			r.signs("postern")
			r.want("postern signing published")
			r.dns.down = true
			r.restart()
			r.round()
			r.signs("postern")
		})
	}
}

// Where nothing is known of the DNS mail is signed.
func TestSilentDNS(t *testing.T) {
	r := newRotation(t, "", "postern=ed25519")
	r.dns.down = true
	r.restart()
	r.signs("postern")
	r.round()
	r.signs("postern")
	r.want("postern signing unknown")
}

// Whoever does not want the DNS to be asked, because it shows this machine something else
// than the world, gets signatures, whatever it said before.
func TestNeverAsked(t *testing.T) {
	r := newRotation(t, "", "postern=ed25519")
	record := r.dns.texts["postern._domainkey.example.org"]
	clear(r.dns.texts)
	r.restart()
	r.round()
	r.unsigned("postern")
	r.set += "check_interval = '0s'\n"
	r.dns.asked = 0
	r.restart()
	if _, v := (&rig{Plugin: r.p}).signed(t, plain); !strings.Contains(v.Notes["signed"], "s=postern ") || r.dns.asked != 0 {
		t.Errorf("%v, asked %d times", v.Notes, r.dns.asked)
	}
	all, err := r.ring.Status(t.Context(), nil, true)
	if err != nil || len(all) != 1 || all[0].State != "signing" || all[0].DNS != "missing" || !all[0].Fault() {
		t.Errorf("%+v, %v", all, err)
	}
	r.dns.texts["postern._domainkey.example.org"] = record
	r.signs("postern")
}

// A new key that the DNS does not have yet is looked for more often, for a day.
func TestPause(t *testing.T) {
	r := newRotation(t, "", "postern=ed25519")
	wants := func(what string, want time.Duration) {
		t.Helper()
		r.round()
		if got := r.p.pause(); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	wants("published", 10*time.Minute)
	made := r.rotate()[0]
	wants("the next one waits", time.Minute)
	r.publish(made)
	wants("and is there", 10*time.Minute)
	clear(r.dns.texts)
	wants("all are gone", time.Minute)
	r.now = r.now.Add(25 * time.Hour)
	wants("for long", 10*time.Minute)
	r.now = r.now.Add(-25 * time.Hour)
	r.set += "check_interval = '5s'\n"
	r.restart()
	wants("more often than that", 5*time.Second)
}

// A selector that is added signs only once the DNS shows its key.
func TestAddedSelector(t *testing.T) {
	r := newRotation(t, "selectors = ['rsa', 'ed']\n", "rsa=rsa", "ed=ed25519")
	name := "ed._domainkey.example.org"
	record := r.dns.texts[name]
	if record == "" {
		t.Fatalf("%v", r.dns.texts)
	}
	delete(r.dns.texts, name)
	for range 2 {
		if log := r.round(); !strings.Contains(log, name) {
			t.Errorf("log: %s", log)
		}
		r.signs("rsa")
		r.want("rsa signing published, ed waiting missing")
		r.restart() // it is known again, and the warning is given again
		r.signs("rsa")
	}
	r.dns.texts[name] = record
	r.round()
	r.signs("rsa", "ed")
	r.want("rsa signing published, ed signing published")
	// The DNS is down: what it showed counts, after a restart too.
	r.dns.down = true
	r.round()
	if _, v := (&rig{Plugin: r.p}).signed(t, plain); strings.Count(v.Notes["signed"], "s=") != 2 {
		t.Errorf("%v", v.Notes)
	}
	r.restart()
	if _, v := (&rig{Plugin: r.p}).signed(t, plain); strings.Count(v.Notes["signed"], "s=") != 2 {
		t.Errorf("%v", v.Notes)
	}
	r.dns.down = false
	delete(r.dns.texts, name) // it is gone again
	r.round()
	r.signs("rsa")
	clear(r.dns.texts)
	r.round()
	r.unsigned("rsa", "ed")
}

// RSA and Ed25519 at a time, each with a life of its own.
func TestDoubleSignatures(t *testing.T) {
	r := newRotation(t, "selectors = ['rsa', 'ed']\n", "rsa=rsa", "ed=ed25519")
	r.now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	r.signs("rsa", "ed")
	r.round()
	made, err := r.ring.Rotate(t.Context(), org, "ed")
	if err != nil || len(made) != 1 || made[0].Algorithm != "ed25519-sha256" {
		t.Fatalf("%+v, %v", made, err)
	}
	r.publish(made[0])
	r.round()
	r.signs("rsa", "ed-20260501")
	if _, err := r.ring.Rotate(t.Context(), org, "other"); err == nil {
		t.Error("rotated a selector that is not there")
	}
	if _, err := r.ring.Rotate(t.Context(), mail.MustDomain("example.com"), ""); err == nil || !strings.Contains(err.Error(), "not in the settings") {
		t.Errorf("another domain: %v", err)
	}
	if both := r.rotate(); len(both) != 2 || both[0].Selector != "rsa-20260501" || both[1].Selector != "ed-20260501a" {
		t.Errorf("%+v", both)
	}
	// H-11: what was signed with any of our selectors is replaced.
	once, _ := (&rig{Plugin: r.p}).signed(t, plain)
	twice, _ := (&rig{Plugin: r.p}).signed(t, strings.Replace(once, "s=ed-20260501;", "s=ed-20250101;", 1))
	if n := strings.Count(twice, "DKIM-Signature:"); n != 2 {
		t.Errorf("%d signatures", n)
	}
}

// Keys of a certain age get successors, one at a time.
func TestRotateAfter(t *testing.T) {
	r := newRotation(t, "rotate_after = '2160h'\n", "postern=ed25519")
	first := r.now
	r.round()
	r.now = first.Add(2160*time.Hour - time.Second)
	r.round()
	r.want("postern signing published")
	r.now = first.Add(2160 * time.Hour)
	log := r.round()
	next := "postern-" + r.now.UTC().Format("20060102")
	if !strings.Contains(log, "publish its record") || !strings.Contains(log, next+"._domainkey.example.org. IN TXT") {
		t.Errorf("log: %s", log)
	}
	r.now = first.Add(3000 * time.Hour)
	r.round()
	r.want(next + " waiting missing, postern signing published")
	all, _ := r.ring.Status(t.Context(), nil, false)
	r.publish(all[0])
	r.round()
	r.signs(next)
	r.round()
	r.want(next + " signing published, postern overlap published")
}

// A file that has another key under the same selector is noticed, also after a restart, and
// nothing is signed with it while the old one is what the DNS shows.
func TestReplacedFile(t *testing.T) {
	r := newRotation(t, "", "postern=ed25519")
	r.round()
	file := KeyFile(r.dir, org, "postern")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	_, rec, err := dkimkey.Generate(r.dir, org, "postern", "ed25519")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, r.now, r.now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if log := r.round(); !strings.Contains(log, "has another key now") {
		t.Errorf("log: %s", log)
	}
	r.signs("postern")
	r.round()
	r.signs("postern")
	r.want("postern waiting different")
	r.restart()
	if log := r.round(); !strings.Contains(log, "another key than it had") || !strings.Contains(log, "dns=different") {
		t.Errorf("after a restart: %s", log)
	}
	r.dns.texts[rec.Name] = rec.Value
	r.round()
	r.signs("postern")
	r.want("postern signing published")
}

// Many domains, with selectors of their own, are looked up a few at a time.
func TestManyDomains(t *testing.T) {
	data := t.TempDir()
	dns := &fakeDNS{texts: make(map[string]string)}
	var names []string
	for i := range 100 {
		d := mail.MustDomain("d" + strings.Repeat("x", i%50+1) + string(rune('a'+i/50)) + ".test")
		selector := "postern"
		if i == 7 {
			selector = "own"
		}
		_, rec, err := Generate(filepath.Join(data, "dkim"), d, selector, "ed25519")
		if err != nil {
			t.Fatal(err)
		}
		dns.texts[rec.Name] = rec.Value
		names = append(names, d.String())
	}
	p := New()
	p.resolver = dns
	settings := "domains = ['" + strings.Join(names, "', '") + "']\nper_domain = {'" + names[7] + "' = ['own']}\n"
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings), DataDir: data}); err != nil {
		t.Fatal(err)
	}
	dns.asked = 0
	p.round(t.Context(), p.keeper())
	if dns.asked != 100 {
		t.Errorf("%d look-ups", dns.asked)
	}
	for i, name := range names {
		_, v := (&rig{Plugin: p}).signed(t, strings.Replace(plain, "ann@example.org", "ann@sub."+name, 1))
		want := "d=" + name + " s=postern "
		if i == 7 {
			want = "d=" + name + " s=own "
		}
		if !strings.HasPrefix(v.Notes["signed"], want) {
			t.Errorf("%s: %v", name, v.Notes)
		}
	}
}

// Serve works until it is ended, whatever the DNS does.
func TestServe(t *testing.T) {
	r := newRotation(t, "", "postern=ed25519")
	made := r.rotate()[0]
	r.publish(made)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	before := r.p.ring.Load()
	go func() { done <- r.p.Serve(ctx, nil) }()
	deadline := time.After(30 * time.Second)
	for r.p.ring.Load() == before {
		select {
		case <-deadline:
			t.Fatal("no round")
		case <-time.After(time.Millisecond):
		}
	}
	r.signs(made.Selector)
	cancel()
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
}

// A folder that cannot be read any more leaves everything as it was.
func TestRoundFails(t *testing.T) {
	r := newRotation(t, "", "postern=ed25519")
	r.round()
	if err := os.Chmod(KeyFile(r.dir, org, "postern"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(KeyFile(r.dir, org, "postern"), r.now, r.now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.p.round(t.Context(), r.k)
	if !strings.Contains(r.log.String(), "chmod 600") {
		t.Errorf("log: %s", r.log.String())
	}
	r.signs("postern")
	if err := os.WriteFile(historyFile(r.dir, org), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ring.Status(t.Context(), nil, false); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Error(err)
	}
}

// Only mail of our own users is signed, whatever the setting origins says.
func TestOnlyOurUsers(t *testing.T) {
	r := newRig(t, "ed25519", "example.org")
	for origin, want := range map[mail.Origin]bool{mail.Submitted: true, mail.Internal: true, mail.Incoming: false, mail.Fetched: false, mail.Redirected: false} {
		h, body := mail.SplitMessage([]byte(plain))
		v, err := r.Filter(t.Context(), &mail.Message{Envelope: mail.Envelope{Origin: origin}, Header: h, Body: mail.InlineBody(body)})
		if err != nil || (v.Notes["signed"] != "") != want {
			t.Errorf("%s: %v, %v", origin, v, err)
		}
	}
}
