package dkimverify

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestExamplesOfTheRFCs(t *testing.T) {
	rs := verify(t, Options{Resolver: published}, example(t, "rfc6376.eml"))
	if len(rs) != 1 {
		t.Fatalf("%+v", rs)
	}
	r := rs[0]
	if r.Value != Pass || r.Domain.String() != "example.com" || r.Selector != "brisbane" || r.Identity != "joe@football.example.com" ||
		r.Algorithm != "rsa-sha256" || r.Bits != 1024 || r.Signature != "AuUoFEfD" || strings.Join(r.Fields, " ") != "received from to subject date message-id" {
		t.Errorf("%+v", r)
	}
	rs = verify(t, Options{Resolver: published}, example(t, "rfc8463.eml"))
	if values(rs) != "pass pass" || rs[0].Algorithm != "ed25519-sha256" || rs[0].Bits != 256 || rs[0].Selector != "brisbane" ||
		rs[1].Algorithm != "rsa-sha256" || rs[1].Selector != "test" || rs[1].Time.Unix() != 1528637909 {
		t.Errorf("%+v", rs)
	}
}

// Every byte of what was signed counts: each is changed in turn.
func TestEveryByteCounts(t *testing.T) {
	for _, name := range []string{"rfc6376.eml", "rfc8463.eml"} {
		wire := example(t, name)
		start := strings.Index(wire, "Received:")
		if name == "rfc8463.eml" {
			start = strings.Index(wire, "From:")
		}
		for i := start; i < len(wire); i++ {
			if c := wire[i]; c == '\r' || c == '\n' {
				continue
			}
			changed := []byte(wire)
			changed[i] ^= 1
			for _, r := range verify(t, Options{Resolver: published}, string(changed)) {
				if r.Value == Pass {
					t.Errorf("%s: still passes with byte %d changed: %q", name, i, changed[max(0, i-20):min(len(changed), i+20)])
				}
			}
		}
		// The signature's own field too, but for its white space and its unsigned rest.
		end := strings.Index(wire, "\r\n"+wire[start:start+5])
		for i := 0; i < end; i++ {
			if strings.ContainsRune(" \r\n", rune(wire[i])) {
				continue
			}
			changed := []byte(wire)
			changed[i] ^= 1
			if rs := verify(t, Options{Resolver: published}, string(changed)); values(rs) == values(verify(t, Options{Resolver: published}, wire)) {
				t.Errorf("%s: passes with byte %d of the signature changed: %q", name, i, changed[max(0, i-20):min(len(changed), i+20)])
			}
		}
	}
}

// TestCanonicalization: what a relay may change, and what not (RFC 6376 §3.4).
func TestCanonicalization(t *testing.T) {
	wire := example(t, "rfc8463.eml")
	for name, c := range map[string]struct{ old, new, want string }{
		"as it is":              {"", "", "pass pass"},
		"name in capitals":      {"Subject:", "SUBJECT  :", "pass pass"},
		"folded":                {"Is dinner", "Is\r\n\t  dinner", "pass pass"},
		"blanks at ends":        {"ready?\r\n", "ready? \t \r\n", "pass pass"},
		"blanks in the body":    {"the game. ", "the \t game.\t", "pass pass"},
		"blanks after lines":    {"Joe.\r\n", "Joe. \t\r\n", "pass pass"},
		"empty lines at end":    {"Joe.\r\n", "Joe.\r\n\r\n \t\r\n", "pass pass"},
		"no last line end":      {"Joe.\r\n", "Joe.", "pass pass"},
		"another field":         {"From:", "X-Other: y\r\nFrom:", "pass pass"},
		"a blank begins a line": {"Hi.", " Hi.", "fail fail"},
		"a second From":         {"From:", "From: eve@example.net\r\nFrom:", "fail fail"},
		"a second Subject":      {"From:", "Subject: eve\r\nFrom:", "fail fail"},
		"a line more":           {"Joe.\r\n", "Joe.\r\n\r\nBuy!\r\n", "fail fail"},
		"an empty line less":    {"Hi.\r\n\r\n", "Hi.\r\n", "fail fail"},
	} {
		changed := wire
		if c.old != "" {
			i := strings.Index(wire, "From: Joe")
			changed = wire[:i] + strings.Replace(wire[i:], c.old, c.new, 1)
		}
		if rs := verify(t, Options{Resolver: published}, changed); values(rs) != c.want {
			t.Errorf("%s: %+v", name, rs)
		}
	}
	simple := example(t, "rfc6376.eml")
	for name, c := range map[string]struct{ old, new, want string }{
		"empty lines at end":  {"Joe.\r\n", "Joe.\r\n\r\n\r\n", "pass"},
		"no last line end":    {"Joe.\r\n", "Joe.", "pass"},
		"a blank at an end":   {"Joe.\r\n", "Joe. \r\n", "fail"},
		"a blank in a field":  {"Is dinner", "Is  dinner", "fail"},
		"a name in capitals":  {"Subject:", "SUBJECT:", "fail"},
		"a blank line, blank": {"Joe.\r\n", "Joe.\r\n \r\n", "fail"},
	} {
		if rs := verify(t, Options{Resolver: published}, strings.Replace(simple, c.old, c.new, 1)); values(rs) != c.want {
			t.Errorf("simple, %s: %+v", name, rs)
		}
	}
}

// Signatures of the library verify, in all canonicalizations, for all shapes of bodies.
func TestPeerLibrary(t *testing.T) {
	for _, algorithm := range []string{"rsa", "ed25519"} {
		s := newSigner(t, algorithm)
		for _, h := range []msgauth.Canonicalization{"", "simple", "relaxed"} {
			for _, b := range []msgauth.Canonicalization{"simple", "relaxed"} {
				s.options.HeaderCanonicalization, s.options.BodyCanonicalization = h, b
				for _, body := range []string{"", "\r\n", "\r\n\r\n", "x", "x\r\n", " \r\n", "\t", " x\r\n", "x \r\n\r\n y\tz  a\r\n\r\n\r\n", "\r\n\r\nx", "gr\xfc\xdfe \xff\r\n",
					strings.Repeat("0123456789 abcdef  \t x\r\n", 9000), strings.Repeat(" ", 70000) + "x" + strings.Repeat("\r\n", 70000) + "y"} {
					wire := strings.SplitAfter(plain, "\r\n\r\n")[0] + body
					rs := verify(t, Options{Resolver: s.zone()}, s.sign(t, wire))
					if values(rs) != "pass" {
						t.Errorf("%s, %s/%s, %.40q: %+v", algorithm, h, b, body, rs)
					}
				}
			}
		}
	}
}

// The body's hash does not depend on how the body comes in pieces.
func TestPieces(t *testing.T) {
	s := newSigner(t, "ed25519")
	s.options.BodyCanonicalization = "relaxed"
	body := "a  b\t\r\n \r\n\r\n\tc \r\r\n d\re \r\n\r\n"
	for _, c := range []dkimsig.Canon{dkimsig.Simple, dkimsig.Relaxed} {
		whole := dkimsig.NewBodyHash(c)
		whole.Write([]byte(body))
		want, n := whole.Sum()
		for size := 1; size < len(body); size++ {
			b := dkimsig.NewBodyHash(c)
			for i := 0; i < len(body); i += size {
				b.Write([]byte(body[i:min(len(body), i+size)]))
			}
			if got, m := b.Sum(); !bytes.Equal(got, want) || m != n {
				t.Errorf("%s, pieces of %d: %d, want %d bytes", c, size, m, n)
			}
		}
	}
}

// tampered is a signed message whose signature field is changed afterwards; where that is
// about what is signed the result is not Pass anyway, and here it has to say why.
func TestWhatASignatureSays(t *testing.T) {
	s := newSigner(t, "rsa")
	s.options.HeaderCanonicalization, s.options.BodyCanonicalization = "relaxed", "relaxed"
	good := s.sign(t, plain)
	for name, c := range map[string]struct {
		old, new, want, reason string
	}{
		"as it is":          {"", "", "pass", ""},
		"SHA-1":             {"a=rsa-sha256", "a=rsa-sha1", "policy", "SHA-1"},
		"unknown algorithm": {"a=rsa-sha256", "a=dsa-sha512", "neutral", "not known"},
		"version 2":         {"v=1;", "v=2;", "neutral", "version"},
		"no version":        {"v=1;", "", "neutral", "version"},
		"another kind":      {"a=rsa-sha256", "a=ed25519-sha256", "permerror", "another kind"},
		"a tag twice":       {"v=1;", "v=1; v=1;", "neutral", "twice"},
		"no equals sign":    {"v=1;", "v=1; what;", "neutral", "malformed"},
		"an empty tag":      {"v=1;", "v=1;;", "neutral", "malformed"},
		"no selector":       {"s=s1;", "", "neutral", "tag s"},
		"odd selector":      {"s=s1;", "s=a b;", "neutral", "tag s"},
		"long selector":     {"s=s1;", "s=" + strings.Repeat("a", 64) + ";", "neutral", "tag s"},
		"no such key":       {"s=s1;", "s=s2;", "permerror", "no key"},
		"address as domain": {"d=example.org", "d=[192.0.2.1]", "neutral", "tag d"},
		"i= elsewhere":      {"v=1;", "v=1; i=ann@example.com;", "permerror", "i="},
		"i= similar":        {"v=1;", "v=1; i=ann@badexample.org;", "permerror", "i="},
		"i= no address":     {"v=1;", "v=1; i=ann;", "permerror", "i="},
		"From not signed":   {"From:Subject", "Subject", "permerror", "From"},
		"empty name":        {"h=From:", "h=From::", "neutral", "tag h"},
		"query":             {"v=1;", "v=1; q=dns/other;", "neutral", "DNS"},
		"canonicalization":  {"relaxed/relaxed", "relaxed/strange", "neutral", "tag c"},
		"l= and more":       {"v=1;", "v=1; l=2;", "policy", "part"},
		"l= too much":       {"v=1;", "v=1; l=100;", "permerror", "l="},
		"l= no number":      {"v=1;", "v=1; l=-1;", "neutral", "tag l"},
		"l= with a sign":    {"v=1;", "v=1; l=+1;", "neutral", "tag l"},
		"t= too large":      {"v=1;", "v=1; t=99999999999999999999;", "neutral", "tag t"},
		"b= no base64":      {"b=", "b=!", "neutral", "base64"},
		"a header more":     {"From: Ann", "From: Eve <eve@example.net>\r\nFrom: Ann", "policy", "field from"},
		"a subject more":    {"From: Ann", "Subject: Pay\r\nFrom: Ann", "policy", "field subject"},
		"unsigned fields":   {"From: Ann", "Reply-To: a@example.net\r\nReply-To: b@example.net\r\nFrom: Ann", "pass", ""},
		"too long":          {"v=1;", "v=1; n=" + strings.Repeat("x", dkimsig.MaxTagList) + ";", "neutral", "too long"},
		"a control":         {"v=1;", "v=1; n=\x1b;", "neutral", "character"},
		"too many tags":     {"v=1;", "v=1;" + manyTags(64), "neutral", "too many"},
	} {
		wire := strings.Replace(good, c.old, c.new, 1)
		if c.old != "" && wire == good {
			t.Fatalf("%s: nothing to replace in\n%s", name, good)
		}
		rs := verify(t, Options{Resolver: s.zone()}, wire)
		if values(rs) != c.want || !strings.Contains(rs[0].Reason, c.reason) {
			t.Errorf("%s: %+v", name, rs)
		}
	}
}

// TestTimes: x= counts, and is compared with the time at which the message is looked at.
func TestTimes(t *testing.T) {
	s := newSigner(t, "ed25519")
	for tags, want := range map[string]string{
		"t=1000; x=2000;":         "pass",
		"x=1999;":                 "pass",
		"x=1998;":                 "policy",
		"t=9999;":                 "pass",
		"t=2000; x=1999;":         "neutral",
		"x=soon;":                 "neutral",
		"x=;":                     "neutral",
		"t=1; x=999999999999;":    "pass",
		"t=99999999999999999999;": "neutral",
	} {
		o := Options{Resolver: s.zone(), Now: func() time.Time { return time.Unix(1999, 0) }}
		if rs := verify(t, o, own(t, s, "d=example.org; "+tags, plain)); values(rs) != want || rs[0].Domain.String() != "example.org" {
			t.Errorf("%s: %+v", tags, rs)
		}
	}
}

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "x%d=;", i)
	}
	return b.String()
}

// Domains are not case-sensitive, in d=, in i= and against one another.
func TestCaseOfDomains(t *testing.T) {
	s := newSigner(t, "ed25519")
	for _, i := range []string{"joe@Example.org", "@EXAMPLE.ORG", "joe@Sub.Example.Org", `"a@b"@example.org`} {
		s.options.Identifier = i
		s.record = ""
		// The library refuses to sign some of these; it does so with our own parts.
		rs := verify(t, Options{Resolver: s.zone()}, own(t, s, "i="+i+"; d=example.ORG;", plain))
		if values(rs) != "pass" || rs[0].Identity != i || rs[0].Domain.String() != "example.org" {
			t.Errorf("%s: %+v", i, rs)
		}
		s.record = "t=s; "
		want := "pass"
		if strings.Contains(i, "Sub") {
			want = "permerror"
		}
		if rs := verify(t, Options{Resolver: s.zone()}, own(t, s, "i="+i+"; d=example.org;", plain)); values(rs) != want {
			t.Errorf("%s, t=s: %+v", i, rs)
		}
	}
}

// Results come in the order of the header, whatever fails and however long the DNS takes.
func TestOrder(t *testing.T) {
	s := newSigner(t, "ed25519")
	wire := s.sign(t, plain)
	s.options.Selector = "gone"
	wire = s.sign(t, wire)
	wire = "DKIM-Signature: nonsense\r\n" + wire
	zone := zone{"s1._domainkey.example.org": publish(s.key.Public(), "")}
	if rs := verify(t, Options{Resolver: zone}, wire); values(rs) != "neutral permerror pass" || rs[1].Selector != "gone" {
		t.Errorf("%+v", rs)
	}
}

// M-10, H-01: hostile messages cost time linear in their size. They are larger than any header
// may be, so that n² steps would not end in the time of a test.
func TestM10LinearTime(t *testing.T) {
	s := newSigner(t, "ed25519")
	const n = 2 << 20
	for name, wire := range map[string]string{
		"folds":          "References: <a@b>\r\n" + strings.Repeat(" x\r\n", n/4) + plain,
		"many fields":    strings.Repeat("a:\r\n", n/4) + plain,
		"many Froms":     strings.Repeat("From: a\r\n", n/9) + plain,
		"blanks":         plain + strings.Repeat(" ", 2*n),
		"blanks, text":   plain + strings.Repeat(" \tx", n/2),
		"line ends":      plain + strings.Repeat("\r\n", n) + "x",
		"CRs":            plain + strings.Repeat("\r", 2*n),
		"double spaces":  plain + strings.Repeat("a  ", n/2),
		"a b before tab": plain + strings.Repeat("a b", n/2) + "\t",
	} {
		var signed string
		for i := range 8 {
			s.options.Selector = fmt.Sprint("s", i)
			signed += strings.TrimSuffix(own(t, s, "d=example.org; n="+fmt.Sprint(i)+";", wire), wire)
		}
		rs := verify(t, Options{Resolver: s.zone()}, signed+wire)
		if want := name == "many Froms"; len(rs) != 8 || (rs[7].Value != Pass) != want {
			t.Errorf("%s: %+v", name, rs)
		}
	}
}

// A message may have no blank line, no body, or no signature.
func TestOddMessages(t *testing.T) {
	s := newSigner(t, "ed25519")
	for _, wire := range []string{"From: ann@example.org\r\nno field\r\n", "From: ann@example.org\r\nSubject: x\r\n", "From: ann@example.org\r\nSubject: x", "From: ann@example.org\r\n\r\n"} {
		if rs := verify(t, Options{Resolver: s.zone()}, own(t, s, "d=example.org;", wire)); values(rs) != "pass" {
			t.Errorf("%q: %+v", wire, rs)
		}
	}
	for _, wire := range []string{"", "\r\n", "body only", plain} {
		if rs := verify(t, Options{Resolver: s.zone()}, wire); len(rs) != 0 {
			t.Errorf("%q: %+v", wire, rs)
		}
	}
}

// A body in a file is read in pieces; one that cannot be read is an error and no result.
func TestBodyInFile(t *testing.T) {
	s := newSigner(t, "ed25519")
	file := filepath.Join(t.TempDir(), "content")
	body := strings.Repeat("0123456789  abcdef\r\n", 100000)
	if err := os.WriteFile(file, []byte("skip"+body), 0o600); err != nil {
		t.Fatal(err)
	}
	wire := own(t, s, "d=example.org;", plain+body)
	m := message(wire)
	skip := int64(len(m.Body.Inline) - len(body))
	if err := os.WriteFile(file, append(m.Body.Inline[:skip:skip], body...), 0o600); err != nil {
		t.Fatal(err)
	}
	v, _ := New(Options{Resolver: s.zone()})
	m.Body = mail.Body{Path: file, Size: skip + int64(len(body))}
	if rs, err := v.Verify(t.Context(), m); err != nil || values(rs) != "pass" {
		t.Errorf("%+v, %v", rs, err)
	}
	if n := testing.AllocsPerRun(3, func() { v.Verify(t.Context(), m) }); n > 300 {
		t.Errorf("%v allocations", n)
	}
	for _, b := range []mail.Body{{Path: file + "x", Size: 1}, {Path: file, Size: 1 << 30}, {Path: file, Size: 4, Sum: 1, Summed: true}} {
		m.Body = b
		if rs, err := v.Verify(t.Context(), m); err == nil {
			t.Errorf("%+v: %+v", b, rs)
		}
	}
}

// TestPeerDKIMPy: what an implementation of another make signs verifies.
func TestPeerDKIMPy(t *testing.T) {
	const python = "/usr/bin/python3" // the one that Debian packages are for
	if out, err := exec.Command(python, "-c", "import dkim, nacl").CombinedOutput(); err != nil {
		if os.Getenv("POSTERN_REQUIRE_PEERS") == "1" {
			t.Fatalf("%s", out)
		}
		t.Skipf("SKIP: a Python module is not installed: %s", out)
	}
	key := newSigner(t, "rsa")
	file := filepath.Join(t.TempDir(), "key.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key.key.(*rsa.PrivateKey))})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `
import sys, dkim
wire = sys.stdin.buffer.read()
for h in (b'simple', b'relaxed'):
    for b in (b'simple', b'relaxed'):
        wire = dkim.sign(wire, b's1', b'example.org', open(sys.argv[1], 'rb').read(), canonicalize=(h, b), identity=b'ann@Sub.example.org') + wire
sys.stdout.buffer.write(wire)
`
	for _, body := range []string{"", " a\t b \r\n\r\nc  d gr\xfc\xdfe\r\n \r\n\r\n"} {
		cmd := exec.Command(python, "-c", script, file)
		cmd.Stdin = strings.NewReader(strings.SplitAfter(plain, "\r\n\r\n")[0] + body)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, err.(*exec.ExitError).Stderr)
		}
		if rs := verify(t, Options{Resolver: key.zone()}, string(out)); values(rs) != "pass pass pass pass" {
			t.Errorf("%q: %+v", body, rs)
		}
	}
}

func FuzzVerify(f *testing.F) {
	s := newSigner(f, "ed25519")
	good := own(f, s, "d=example.org;", plain)
	f.Add(good)
	f.Add("DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/simple; d=example.org; s=s1; h=from; l=3; bh=AAAA; b=AAAA\r\n" + plain)
	v, _ := New(Options{Resolver: s.zone()})
	f.Fuzz(func(t *testing.T, wire string) {
		rs, err := v.Verify(t.Context(), message(wire))
		if err != nil || len(rs) > 9 {
			t.Fatal(err, len(rs))
		}
		for _, r := range rs {
			if r.Value == "" || (r.Value == Pass) != (r.Reason == "") || len(r.Reason) > 100 || strings.ContainsAny(r.Reason+r.Identity+r.Selector+r.Signature, "\r\n\x00") {
				t.Fatalf("%+v", r)
			}
			if r.Value == Pass && !strings.Contains(wire, "ann@example.org") {
				t.Fatalf("passes: %q", wire)
			}
		}
	})
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Resolver: zone{}, MaxSignatures: -1}, {Resolver: zone{}, LookupTime: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}

func BenchmarkVerify10K(b *testing.B) {
	for _, algorithm := range []string{"rsa", "ed25519"} {
		s := newSigner(b, algorithm)
		s.options.HeaderCanonicalization, s.options.BodyCanonicalization = "relaxed", "relaxed"
		m := message(s.sign(b, plain+strings.Repeat("0123456789 abcdef and so on\r\n", 350)))
		v, _ := New(Options{Resolver: s.zone()})
		b.Run(algorithm, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if rs, _ := v.Verify(b.Context(), m); rs[0].Value != Pass {
					b.Fatal(rs)
				}
			}
		})
	}
}
