package arcchain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/plugins/internal/authres"
	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

const plain = "From: Ann <ann@example.org>\r\nSubject:  some   thing\r\n\tfolded \r\nTo: bob@example.net\r\nMessage-ID: <1@example.org>\r\n\r\nHello  Bob.\r\n"

// rig is a key and the DNS that has it.
type rig struct {
	key *dkimkey.Key
	dns zone
}

func newRig(t testing.TB, algorithm string) *rig {
	t.Helper()
	dir, domain := t.TempDir(), mail.MustDomain("relay.test")
	_, record, err := dkimkey.Generate(dir, domain, "arc", algorithm)
	if err != nil {
		t.Fatal(err)
	}
	k, err := dkimkey.Load(dir, domain, "arc")
	if err != nil {
		t.Fatal(err)
	}
	return &rig{k, zone{record.Name: record.Value}}
}

func (r *rig) seal(t testing.TB, wire string, state CV) string {
	t.Helper()
	out, err := r.try(wire, state)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) try(wire string, state CV) (string, error) {
	m := parsed(wire)
	results := authres.Header{ID: "relay.test", Results: []authres.Result{{Method: "spf", Value: "pass", Props: []authres.Prop{{Type: "smtp", Name: "mailfrom", Value: "ann@example.org"}}}}}
	set, err := new(Sealer).Seal(context.Background(), m, r.key, state, results, time.Now())
	if err != nil {
		return "", err
	}
	for _, f := range set.Fields {
		if err := m.Header.Prepend(f.Name, f.Value); err != nil {
			return "", err
		}
	}
	return string(m.Header.Block()) + string(m.Body.Inline), nil
}

// What we seal validates, set upon set, up to the fiftieth.
func TestSealAndValidate(t *testing.T) {
	for _, algorithm := range []string{"rsa", "ed25519"} {
		r := newRig(t, algorithm)
		wire := "DKIM-Signature: v=1; a=rsa-sha256; d=x.test; s=s; h=from; bh=eA==; b=eA==\r\n" + plain
		state := None
		for i := 1; i <= MaxSets; i++ {
			wire = r.seal(t, wire, state)
			c := validate(t, r.dns, wire)
			if c.State != Pass || c.Instances != i || len(c.Sets) != i || c.OldestPass != 0 {
				t.Fatalf("%s, set %d: %+v", algorithm, i, c)
			}
			if last := c.Last(); last.Domain.String() != "relay.test" || last.Selector != "arc" || !strings.HasPrefix(last.Results, fmt.Sprintf("i=%d; relay.test;", i)) {
				t.Fatalf("%+v", last)
			}
			state = Pass
		}
		if _, err := r.try(wire, Pass); !errors.Is(err, ErrFull) {
			t.Errorf("set 51: %v", err)
		}
		for line := range strings.SplitSeq(wire[:strings.Index(wire, "\r\n\r\n")], "\r\n") {
			if len(line) > 78 {
				t.Errorf("a line of %d bytes: %s", len(line), line)
			}
		}
	}
}

// A change between two seals is seen as what it is: the chain passes, its first message
// signature does not.
func TestChangeBetweenSeals(t *testing.T) {
	r := newRig(t, "ed25519")
	wire := r.seal(t, plain, None)
	changed := strings.Replace(wire, "Subject: ", "Subject: [list]", 1) + "-- \r\nfooter\r\n"
	if c := validate(t, r.dns, changed); c.State != Fail || c.Reason != "message signature 1: the body is not what was signed" {
		t.Errorf("changed: %+v", c)
	}
	two := r.seal(t, changed, Pass)
	if c := validate(t, r.dns, two); c.State != Pass || c.OldestPass != 2 {
		t.Errorf("changed and sealed: %+v", c)
	}
	if c := validate(t, r.dns, r.seal(t, two, Pass)); c.State != Pass || c.OldestPass != 2 {
		t.Errorf("sealed once more: %+v", c)
	}
}

// A chain that fails is sealed once more, with cv=fail, and never again.
func TestFailedChain(t *testing.T) {
	r := newRig(t, "ed25519")
	one := r.seal(t, plain, None)
	for name, wire := range map[string]string{
		"state":         one,
		"malformed":     strings.Replace(one, "ARC-Message-Signature:", "X-Was:", 1),
		"missing first": strings.ReplaceAll(one, "i=1;", "i=2;"),
		"odd instance":  strings.Replace(one, "ARC-Seal: i=1", "ARC-Seal: i=x", 1),
	} {
		state := Pass
		if name == "state" {
			state = Fail
		}
		out := r.seal(t, wire, state)
		c := validate(t, r.dns, out)
		if c.State != Fail || !c.Ended || !strings.Contains(out[:300], "cv=fail") {
			t.Errorf("%s: %+v\n%s", name, c, out)
		}
		if _, err := r.try(out, Pass); !errors.Is(err, ErrEnded) {
			t.Errorf("%s: sealed after cv=fail: %v", name, err)
		}
	}
	// What was said of an earlier set does not end a chain, in whatever order fields are.
	odd := "ARC-Seal: i=1; cv=fail\r\nARC-Seal: i=2; cv=pass\r\n" + plain
	if c := validate(t, r.dns, odd); c.Ended || c.Instances != 2 {
		t.Errorf("odd order: %+v", c)
	}
	// No chain can be talked into one that does not stand in the header.
	if out := r.seal(t, plain, Pass); !strings.Contains(out[:300], "cv=none") {
		t.Errorf("no chain: %s", out)
	}
}

// Every byte of the sets counts, and of the message that the last set covers.
func TestEveryByteCounts(t *testing.T) {
	r := newRig(t, "ed25519")
	wire := r.seal(t, r.seal(t, plain, None), Pass)
	for i := range len(wire) {
		if strings.ContainsRune(" \t\r\n", rune(wire[i])) {
			continue
		}
		changed := []byte(wire)
		changed[i] ^= 1
		if c := validate(t, r.dns, string(changed)); c.State == Pass {
			t.Errorf("passes with byte %d changed: %q", i, changed[max(0, i-20):min(len(changed), i+20)])
		}
	}
}

// What the DNS did not answer is unknown.
func TestDNS(t *testing.T) {
	r := newRig(t, "ed25519")
	wire := r.seal(t, r.seal(t, plain, None), Pass)
	for name, c := range map[string]struct {
		err     error
		unknown bool
	}{
		"no key": {&net.DNSError{IsNotFound: true}, false}, "failure": {&net.DNSError{IsTemporary: true}, true}, "other": {errors.New("x"), true},
	} {
		v, _ := New(Options{Resolver: failing{c.err}})
		got, err := v.Validate(t.Context(), parsed(wire))
		if err != nil || got.State != Fail || got.Unknown != c.unknown || got.Instances != 2 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v, _ := New(Options{Resolver: r.dns})
	if c, err := v.Validate(ctx, parsed(wire)); err == nil {
		t.Errorf("%+v", c)
	}
	m := parsed(wire)
	m.Body = mail.Body{Path: "/nowhere/at/all", Size: 1}
	if c, err := v.Validate(t.Context(), m); err == nil {
		t.Errorf("%+v", c)
	}
}

type failing struct{ err error }

func (f failing) LookupTXT(context.Context, string) ([]string, error) { return nil, f.err }

// M-10, H-01: hostile headers cost time linear in their size, and ask for no keys. They are larger
// than any header may be, so that n² steps would not end in the time of a test.
func TestM10Hostile(t *testing.T) {
	r := newRig(t, "ed25519")
	const n = 8 << 20
	big := r.seal(t, "X-Folds: a\r\n"+strings.Repeat(" x\r\n", n/16)+plain, None)
	for i := 2; i <= 50; i++ {
		big = r.seal(t, big, Pass)
	}
	for name, c := range map[string]struct {
		wire string
		want CV
	}{
		"50 sets, a long header": {big, Pass},
		"seals":                  {strings.Repeat("ARC-Seal: i=1; cv=none\r\n", n/24) + plain, Fail},
		"message signatures":     {strings.Repeat("ARC-Message-Signature: i=1\r\n", n/28) + plain, Fail},
		"results":                {strings.Repeat("ARC-Authentication-Results: i=1;\r\n", n/34) + plain, Fail},
		"a long seal":            {"ARC-Seal: i=1; x=" + strings.Repeat("x", n) + "\r\n" + plain, Fail},
	} {
		got := validate(t, r.dns, c.wire)
		if got.State != c.want || len(got.Reason) > 100 {
			t.Errorf("%s: %s: %.200s", name, got.State, got.Reason)
		}
	}
}

// TestPeerDKIMPy has an implementation of another make validate what we seal, and seal on top
// of it, which we validate in turn.
func TestPeerDKIMPy(t *testing.T) {
	verifier := peertest.Program(t, "arcverify")
	python := "/usr/bin/python3" // the one that Debian packages are for
	if out, err := exec.Command(python, "-c", "import dkim, dns, authres").CombinedOutput(); err != nil {
		if os.Getenv("POSTERN_REQUIRE_PEERS") == "1" {
			t.Fatalf("%s", out)
		}
		t.Skipf("SKIP: a Python module is not installed: %s", out)
	}
	r := newRig(t, "rsa")
	dir := t.TempDir()
	script := filepath.Join(dir, "peer.py")
	if err := os.WriteFile(script, []byte(peerScript), 0o600); err != nil {
		t.Fatal(err)
	}
	record := r.dns["arc._domainkey.relay.test"]
	run := func(what, wire string) string {
		t.Helper()
		cmd := exec.Command(python, script, what, record, r.key.Path)
		cmd.Stdin = strings.NewReader(wire)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s (%s): %v\n%s", what, verifier, err, out)
		}
		return string(out)
	}
	one := r.seal(t, plain, None)
	if got := run("verify", one); got != "pass" {
		t.Errorf("one set: %s\n%s", got, one)
	}
	two := r.seal(t, strings.Replace(one, "Subject: ", "Subject: [list]", 1)+"footer \t x\r\n\r\n", Pass)
	if got := run("verify", two); got != "pass" {
		t.Errorf("two sets: %s\n%s", got, two)
	}
	if got := run("verify", strings.Replace(two, "Hello", "Hallo", 1)); got != "fail" {
		t.Errorf("changed: %s", got)
	}
	theirs := run("seal", "Authentication-Results: relay.test; arc=pass; spf=pass smtp.mailfrom=ann@example.org\r\n"+two)
	if c := validate(t, r.dns, theirs); c.State != Pass || c.Instances != 3 {
		t.Errorf("their seal on ours: %+v\n%s", c, theirs)
	}
	if got := run("verify", r.seal(t, theirs, Pass)); got != "pass" {
		t.Errorf("our seal on theirs: %s", got)
	}
}

const peerScript = `
import sys, dkim
what, record, key = sys.argv[1:]
wire = sys.stdin.buffer.read()
dns = lambda name, timeout=5: record.encode() if name.rstrip(b'.') == b'arc._domainkey.relay.test' else None
if what == 'verify':
    cv, results, reason = dkim.arc_verify(wire, dnsfunc=dns)
    sys.stdout.write(cv.decode())
else:
    chain = dkim.ARC(wire)
    a = chain.sign(b'arc', b'relay.test', open(key, 'rb').read(), b'relay.test', include_headers=[b'from', b'subject', b'to'])
    sys.stdout.buffer.write(b''.join(a) + wire)
`

func FuzzChain(f *testing.F) {
	r := newRig(f, "ed25519")
	f.Add("ARC-Seal: i=1; cv=none; a=ed25519-sha256; d=relay.test; s=arc; b=AAAA\r\nARC-Message-Signature: i=1; a=ed25519-sha256; d=relay.test; s=arc; h=from; bh=AAAA; b=AAAA\r\n" +
		"ARC-Authentication-Results: i=1; x; none\r\n")
	f.Add(strings.SplitAfter(r.seal(f, plain, None), "From:")[0])
	f.Fuzz(func(t *testing.T, header string) {
		wire := header + plain
		c := validate(t, r.dns, wire)
		if c.State == Pass && (c.Instances == 0 || len(c.Sets) != c.Instances || c.Ended) || c.State == None && c.Instances != 0 {
			t.Fatalf("%+v", c)
		}
		out, err := r.try(wire, c.State)
		if err != nil {
			if !errors.Is(err, ErrEnded) && !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			return
		}
		after := validate(t, r.dns, out)
		if c.State == Fail && !after.Ended {
			t.Fatalf("%+v became %+v", c, after)
		}
	})
}
