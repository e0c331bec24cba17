package mail

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestA15PathRoundTrip: a local part is decoded once and quoted again the same way.
func TestA15PathRoundTrip(t *testing.T) {
	for in, want := range map[string]struct{ local, out string }{
		"a@x.test":              {"a", "a@x.test"},
		"A.b+c@X.TEST":          {"A.b+c", "A.b+c@x.test"},
		`"a b"@x.test`:          {"a b", `"a b"@x.test`},
		`"a\"b"@x.test`:         {`a"b`, `"a\"b"@x.test`},
		`"a\\b"@x.test`:         {`a\b`, `"a\\b"@x.test`},
		`"a@b"@x.test`:          {"a@b", `"a@b"@x.test`},
		`"a>b"@x.test`:          {"a>b", `"a>b"@x.test`},
		`"plain"@x.test`:        {"plain", "plain@x.test"},
		`".dot"@x.test`:         {".dot", `".dot"@x.test`},
		`"t@e> ORCPT=x"@x.test`: {"t@e> ORCPT=x", `"t@e> ORCPT=x"@x.test`},
		"ü@bücher.test":         {"ü", "ü@xn--bcher-kva.test"},
		"${run{id}}%s@x.test":   {"${run{id}}%s", "${run{id}}%s@x.test"}, // inert
		"a@[192.0.2.1]":         {"a", "a@[192.0.2.1]"},
		"a@[IPv6:2001:DB8::1]":  {"a", "a@[IPv6:2001:db8::1]"},
	} {
		p, err := ParsePath(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if p.Local != want.local || p.String() != want.out {
			t.Errorf("%q: local %q, written %q", in, p.Local, p.String())
		}
		if again, err := ParsePath(p.String()); err != nil || again != p {
			t.Errorf("%q: does not survive: %v %v", in, again, err)
		}
	}
}

func TestPathRefuses(t *testing.T) {
	for _, in := range []string{
		"a", "@x.test", "a@", "a@b@x.test", "a b@x.test", "a..b@x.test", ".a@x.test", "a.@x.test", `"a@x.test`, `"a"b@x.test`, `"\`, "a@x..test", "a@-x.test", "a@x-.test",
		"a@x.test:25", "a@[127.0.0.1", "a@[300.0.0.1]", "a@[::1]", "a@[IPv6:127.0.0.1]", "a@[IPv6:fe80::1%eth0]", "a\x00@x.test", "a\r\n@x.test", "a@x.test\r\nQUIT", "a\xff@x.test",
		"a@x\u0000.test", "a@x test", "\"a\u2028\"@x.test", "a@\xff\xff.test", "<a@x.test>", "a(c)@x.test", "$(id)@x.test", "a@x.test ",
	} {
		if p, err := ParsePath(in); err == nil {
			t.Errorf("%q: accepted as %q", in, p)
		}
	}
	if p, err := ParsePath(""); err != nil || !p.IsZero() || p.String() != "" {
		t.Errorf("null reverse-path: %v %v", p, err)
	}
}

// TestA20OneCanonicalDomain: every way to write a domain is one value.
func TestA20OneCanonicalDomain(t *testing.T) {
	want := MustDomain("xn--bcher-kva.test")
	for _, in := range []string{"bücher.test", "BÜCHER.test", "xn--bcher-kva.test", "XN--BCHER-KVA.TEST", "bücher。test", "bu\u0308cher.test", "bücher.test."} {
		if d, err := ParseDomain(in); err != nil || d != want {
			t.Errorf("%q: %v %v", in, d, err)
		}
	}
	if want.Unicode() != "bücher.test" {
		t.Errorf("unicode %q", want.Unicode())
	}
	if !MustDomain("a.b.test").Under(MustDomain("b.test")) || MustDomain("ab.test").Under(MustDomain("b.test")) {
		t.Error("Under")
	}
}

// TestA23Lengths: at the limit, and one above (RFC 5321 §4.5.3.1).
func TestA23Lengths(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := label + "." + label + "." + label + "." + strings.Repeat("b", 61) // 253
	for _, c := range []struct {
		in string
		ok bool
	}{
		{strings.Repeat("l", 64) + "@x.test", true}, {strings.Repeat("l", 65) + "@x.test", false},
		{"a@" + label + ".test", true}, {"a@" + label + "a.test", false},
		{strings.Repeat("l", 64) + "@" + long[:189], true}, {strings.Repeat("l", 64) + "@" + long[:190], false},
	} {
		if _, err := ParsePath(c.in); (err == nil) != c.ok {
			t.Errorf("%d octets: %v", len(c.in), err)
		}
	}
	if _, err := ParseDomain(long); err != nil {
		t.Error(err)
	}
	if _, err := ParseDomain(long + "b"); err == nil {
		t.Error("254 octets of domain accepted")
	}
}

func TestPathText(t *testing.T) {
	type record struct {
		P Path
		D Domain
	}
	in := record{MustPath(`"a\"b"@x.test`), MustDomain("x.test")}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out record
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("%s: %v %v", b, out, err)
	}
	if MustPath("A@x.test").Fold() != MustPath("a@x.test") || MustPath("A@x.test") == MustPath("a@x.test") {
		t.Error("Fold")
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"a@x.test", `"a b"@x.test`, "ü@bücher.test", "a@[IPv6:::1]", `"\"@"@x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil || p.IsZero() {
			return
		}
		text := p.String()
		if strings.ContainsAny(text, "\r\n\x00") {
			t.Fatalf("%q is written %q", s, text)
		}
		again, err := ParsePath(text)
		if err != nil || again != p {
			t.Fatalf("%q: %q does not survive: %v", s, text, err)
		}
		if d, err := ParseDomain(p.Domain.String()); err != nil || d != p.Domain {
			t.Fatalf("%q: domain %q does not survive: %v %v", s, p.Domain, d, err)
		}
	})
}
