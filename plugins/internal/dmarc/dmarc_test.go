package dmarc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/sdk/mail"
)

// zone is a DNS of TXT records: names in it exist, with records or without.
type zone map[string][]string

// asking is a zone that notes what it is asked; a record "SERVFAIL" is an error.
type asking struct {
	zone
	asked []string
}

func (a *asking) LookupTXT(_ context.Context, name string) ([]string, error) {
	a.asked = append(a.asked, name)
	txts := a.zone[name]
	if slices.Contains(txts, "SERVFAIL") {
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	if len(txts) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return txts, nil
}

func (a *asking) Exists(_ context.Context, name string) (bool, error) {
	if name == "unknown.example.com" {
		return false, errors.New("no answer")
	}
	for n := range a.zone {
		if n == name || strings.HasSuffix(n, "."+name) {
			return true, nil
		}
	}
	return false, nil
}

func TestParse(t *testing.T) {
	base := Record{PSD: 'u', FailureOptions: "0"}
	with := func(edit func(*Record)) *Record {
		r := base
		edit(&r)
		return &r
	}
	rua := []mail.Path{mail.MustPath("a@b.test")}
	tests := map[string]*Record{
		"v=DMARC1; p=none":                with(func(r *Record) { r.P = None }),
		"v=DMARC1;p=reject;":              with(func(r *Record) { r.P = Reject }),
		" v = DMARC1 ; p = Reject ":       with(func(r *Record) { r.P = Reject }),
		"V=DMARC1; P=QUARANTINE; x=y; ;;": with(func(r *Record) { r.P = Quarantine }),
		"v=DMARC1; t=y; psd=n; p=reject; sp=none; np=reject; adkim=s; aspf=S; fo=1:d": with(func(r *Record) {
			r.P, r.SP, r.NP, r.PSD, r.Testing, r.StrictDKIM, r.StrictSPF, r.FailureOptions = Reject, None, Reject, 'n', true, true, true, "1:d"
		}),
		// Removed tags and bad values are ignored.
		"v=DMARC1; p=reject; pct=0; rf=iodef; ri=0; psd=maybe; t=1; adkim=x; fo=z": with(func(r *Record) { r.P = Reject }),
		// Without a usable policy it stands for p=none if reports are wanted, else for nothing.
		"v=DMARC1; rua=mailto:a@b.test":                  with(func(r *Record) { r.P, r.Reports = None, rua }),
		"v=DMARC1; p=bogus; rua=mailto:a@b.test":         with(func(r *Record) { r.P, r.Reports = None, rua }),
		"v=DMARC1; p=reject; sp=x; rua=mailto:a@b.test":  with(func(r *Record) { r.P, r.Reports = None, rua }),
		"v=DMARC1; p=reject; np=; rua=mailto:a@b.test":   with(func(r *Record) { r.P, r.Reports = None, rua }),
		"v=DMARC1; rua=https://b.test/x":                 with(func(r *Record) { r.P = None }),
		"v=DMARC1":                                       with(func(r *Record) { r.P, r.Unusable = None, true }),
		"v=DMARC1; p=reject; sp=x":                       with(func(r *Record) { r.P, r.Unusable = None, true }),
		"v=DMARC1; p=bogus; rua=a@b.test,mailto:, ,http": with(func(r *Record) { r.P, r.Unusable = None, true }),
		// Sizes are obsolete.
		"v=DMARC1; p=none; rua=mailto:a@b.test!10m , mailto:x%2Cy@c.test": with(func(r *Record) {
			r.P, r.Reports = None, nil
			r.Reports = append(r.Reports, rua[0])
		}),
		"v=DMARC1; p=none; rua=mailto:a@[192.0.2.1],mailto:a@b.test?subject=x": with(func(r *Record) { r.P, r.Reports = None, rua }),
		"":                 nil,
		"v=DMARC2; p=none": nil,
		"v=dmarc1; p=none": nil,
		"p=none; v=DMARC1": nil,
		"DMARC1; p=none":   nil,
		"v=spf1 -all":      nil,
		"v=DMARC1 p=none":  nil,
		"v=DMARC1; p=none\x00" + strings.Repeat("x", maxRecord): nil,
	}
	for txt, want := range tests {
		got, ok := Parse(txt)
		if ok != (want != nil) {
			t.Errorf("%.60q: %v", txt, ok)
		} else if d := cmp.Diff(want, got, cmp.Comparer(func(a, b mail.Domain) bool { return a == b })); d != "" {
			t.Errorf("%.60q:\n%s", txt, d)
		}
	}
}

// The walk of RFC 9989 §4.10: at most eight queries, the names between left out.
func TestWalkNames(t *testing.T) {
	for domain, want := range map[string]string{
		"a.b.c.d.e.f.g.h.i.j.mail.example.com": "a.b.c.d.e.f.g.h.i.j.mail.example.com g.h.i.j.mail.example.com h.i.j.mail.example.com i.j.mail.example.com j.mail.example.com mail.example.com example.com com",
		"a.mail.example.com":                   "a.mail.example.com mail.example.com example.com com",
		"com":                                  "com",
		"1.2.3.4.5.6.7":                        "1.2.3.4.5.6.7 2.3.4.5.6.7 3.4.5.6.7 4.5.6.7 5.6.7 6.7 7",
		"1.2.3.4.5.6.7.8":                      "1.2.3.4.5.6.7.8 2.3.4.5.6.7.8 3.4.5.6.7.8 4.5.6.7.8 5.6.7.8 6.7.8 7.8 8",
		"1.2.3.4.5.6.7.8.9":                    "1.2.3.4.5.6.7.8.9 3.4.5.6.7.8.9 4.5.6.7.8.9 5.6.7.8.9 6.7.8.9 7.8.9 8.9 9",
	} {
		if got := strings.Join(names(domain), " "); got != want {
			t.Errorf("%s: %s", domain, got)
		}
	}
	a := &asking{zone: zone{}}
	res := New(a).Evaluate(t.Context(), mail.MustDomain("x.a.b.c.d.e.f.g.h.i.j.mail.example.com"), nil)
	if res.Value != NoRecord || len(a.asked) != maxQueries {
		t.Errorf("%+v after %q", res, a.asked)
	}
}

// The examples of §4.10.2 and appendix B.4.
func TestOrganizationalDomain(t *testing.T) {
	const p, y, n = "v=DMARC1; p=none", "v=DMARC1; p=none; psd=y", "v=DMARC1; p=none; psd=n"
	tests := []struct {
		zone         zone
		domain, want string
	}{
		{zone{"_dmarc.mail.example.com": {p}, "_dmarc.example.com": {p}}, "a.mail.example.com", "example.com"},
		{zone{"_dmarc.mail.example.com": {n}, "_dmarc.example.com": {p}}, "a.mail.example.com", "mail.example.com"},
		{zone{"_dmarc.com": {y}}, "a.mail.example.com", "example.com"},
		{zone{"_dmarc.example.com": {p}, "_dmarc.signing.example.com": {p}}, "signing.example.com", "example.com"},
		{zone{"_dmarc.example.com": {p}}, "a.b.c.d.e.f.g.h.i.j.k.example.com", "example.com"},
		{zone{"_dmarc.bank.example": {y}, "_dmarc.giant.bank.example": {p}}, "giant.bank.example", "giant.bank.example"},
		{zone{"_dmarc.bank.example": {y}, "_dmarc.giant.bank.example": {p}}, "mail.giant.bank.example", "giant.bank.example"},
		{zone{"_dmarc.bank.example": {y}, "_dmarc.giant.bank.example": {p}}, "mail.mega.bank.example", "mega.bank.example"},
		{zone{"_dmarc.bank.example": {y}}, "bank.example", "bank.example"},
		{zone{"_dmarc.example": {y}}, "a.b.c.d.e.f.g.h.i.j.k.bank.example", "bank.example"},
		{zone{"_dmarc.g.example": {y}}, "a.b.c.d.e.f.x.g.example", "x.g.example"}, // x was not asked for
		{zone{}, "a.example.com", "a.example.com"},
		{zone{"_dmarc.example.com": {p, p}}, "a.example.com", "a.example.com"},
		{zone{"_dmarc.example.com": {p, "other"}}, "a.example.com", "example.com"},
	}
	for _, tt := range tests {
		got, err := New(&asking{zone: tt.zone}).Organizational(t.Context(), mail.MustDomain(tt.domain))
		if err != nil || got.String() != tt.want {
			t.Errorf("%s with %v: %s, %v, want %s", tt.domain, tt.zone, got, err, tt.want)
		}
	}
}

func id(d string, dkim bool) Identifier { return Identifier{Domain: mail.MustDomain(d), DKIM: dkim} }

// Alignment: the examples of appendix B.1, strict and relaxed, and of B.4.
func TestAlignment(t *testing.T) {
	base := zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}, "_dmarc.strict.test": {"v=DMARC1; p=reject; adkim=s; aspf=s"}, "_dmarc.half.test": {"v=DMARC1; p=reject; adkim=s"},
		"_dmarc.example.net": {"v=DMARC1; p=none"}, "_dmarc.signing.example.com": {"v=DMARC1; p=none"},
		"_dmarc.bank.example": {"v=DMARC1; p=none; psd=y"}, "_dmarc.giant.bank.example": {"v=DMARC1; p=reject"}}
	tests := []struct {
		author    string
		id        Identifier
		spf, dkim bool
	}{
		{"example.com", id("example.com", false), true, false},
		{"example.com", id("child.example.com", false), true, false},
		{"child.example.com", id("example.net", false), false, false},
		{"example.com", id("example.com", true), false, true},
		{"child.example.com", id("example.com", true), false, true},
		{"child.example.com", id("example.net", true), false, false},
		{"a.example.com", id("b.example.com", true), false, true},
		{"example.com", id("badexample.com", true), false, false},
		{"example.com", id("com", true), false, false},
		{"strict.test", id("strict.test", true), false, true},
		{"strict.test", id("a.strict.test", true), false, false},
		{"strict.test", id("a.strict.test", false), false, false},
		{"half.test", id("a.half.test", true), false, false},
		{"half.test", id("a.half.test", false), true, false},
		{"example.com", id("signing.example.com", true), false, true},
		{"a.b.c.d.e.f.g.h.i.j.k.example.com", id("signing.example.com", true), false, true},
		{"giant.bank.example", id("mail.giant.bank.example", false), true, false},
		{"giant.bank.example", id("mail.mega.bank.example", true), false, false},
		{"giant.bank.example", id("bank.example", true), false, false},
	}
	for _, tt := range tests {
		a := &asking{zone: base}
		res := New(a).Evaluate(t.Context(), mail.MustDomain(tt.author), []Identifier{tt.id})
		want := Fail
		if tt.spf || tt.dkim {
			want = Pass
		}
		if res.Value != want || res.SPF != tt.spf || res.DKIM != tt.dkim {
			t.Errorf("%s, %+v: %+v", tt.author, tt.id, res)
		}
		if len(a.asked) > 2*maxQueries {
			t.Errorf("%s: %d queries", tt.author, len(a.asked))
		}
	}
}

// A stranger's DNS is not asked about somebody else's mail, and nothing is asked twice.
func TestStrangersAreNotAsked(t *testing.T) {
	a := &asking{zone: zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}}}
	ids := []Identifier{id("evil.test", false), id("a.evil.test", true), id("example.com.evil.test", true), id("x.example.com", true)}
	if res := New(a).Evaluate(t.Context(), mail.MustDomain("example.com"), ids); res.Value != Pass {
		t.Errorf("%+v", res)
	}
	if want := []string{"_dmarc.example.com", "_dmarc.com", "_dmarc.x.example.com"}; !slices.Equal(a.asked, want) {
		t.Errorf("asked %q", a.asked)
	}
}

// Which policy applies (§4.10.1), and what is left of it where the domain is testing.
func TestPolicyDiscovery(t *testing.T) {
	z := zone{
		"_dmarc.example.com": {"v=DMARC1; p=reject; sp=quarantine; np=none"}, "real.example.com": nil, "a.empty.example.com": nil, "_dmarc.own.example.com": {"v=DMARC1; p=none; sp=reject"},
		"_dmarc.p.test": {"v=DMARC1; p=quarantine"}, "_dmarc.np.test": {"v=DMARC1; p=none; np=reject"}, "x.np.test": nil,
		"_dmarc.t.test": {"v=DMARC1; p=reject; t=y"}, "_dmarc.tq.test": {"v=DMARC1; p=quarantine; t=y"}, "_dmarc.tn.test": {"v=DMARC1; p=none; t=y"},
		"_dmarc.gov.example": {"v=DMARC1; p=none; sp=quarantine; np=reject; psd=y"}, "dept.gov.example": nil, "_dmarc.has.gov.example": {"v=DMARC1; p=reject"},
		"_dmarc.two.test": {"v=DMARC1; p=reject", "v=DMARC1; p=none"}, "_dmarc.bad.test": {"v=DMARC1; p=rejekt"}, "_dmarc.badrua.test": {"v=DMARC1; p=rejekt; rua=mailto:a@badrua.test"},
		"_dmarc.no.two.test": {"v=DMARC1; p=quarantine"},
		"_dmarc.broken.test": {"SERVFAIL"},
	}
	for author, want := range map[string]string{ // value, domain of the record, published, policy
		"example.com":           "fail example.com reject reject",
		"real.example.com":      "fail example.com quarantine quarantine",
		"unreal.example.com":    "fail example.com none none",
		"empty.example.com":     "fail example.com quarantine quarantine", // RFC 8020: something is below it
		"own.example.com":       "fail own.example.com none none",
		"sub.own.example.com":   "fail example.com none none",
		"unknown.example.com":   "temperror example.com none none",
		"x.p.test":              "fail p.test quarantine quarantine",
		"x.np.test":             "fail np.test none none",
		"y.np.test":             "fail np.test reject reject",
		"t.test":                "fail t.test reject quarantine",
		"tq.test":               "fail tq.test quarantine none",
		"tn.test":               "fail tn.test none none",
		"gov.example":           "fail gov.example none none",
		"dept.gov.example":      "fail gov.example quarantine quarantine",
		"absent.gov.example":    "fail gov.example reject reject",
		"mail.dept.gov.example": "fail gov.example reject reject", // it does not exist
		"a.has.gov.example":     "fail has.gov.example reject reject",
		"two.test":              "none  none none",
		"no.two.test":           "fail no.two.test quarantine quarantine",
		"bad.test":              "none  none none",
		"badrua.test":           "fail badrua.test none none",
		"broken.test":           "temperror  none none",
		"sub.broken.test":       "temperror  none none",
		"nothing.test":          "none  none none",
		"[192.0.2.1]":           "none  none none",
	} {
		res := New(&asking{zone: z}).Evaluate(t.Context(), mail.MustDomain(author), nil)
		if got := fmt.Sprintf("%s %s %s %s", res.Value, res.Domain, res.Published, res.Policy); got != want {
			t.Errorf("%s: %s, want %s", author, got, want)
		}
		if (res.Value == TempError) != (res.Err != nil) {
			t.Errorf("%s: %v", author, res.Err)
		}
	}
}

// What the DNS did not say matters only where it could have made a difference.
func TestPending(t *testing.T) {
	z := zone{"_dmarc.example.com": {"v=DMARC1; p=reject"}, "_dmarc.bad.example.com": {"SERVFAIL"}}
	pending := func(d string) Identifier { return Identifier{Domain: mail.MustDomain(d), DKIM: true, Pending: true} }
	for _, tt := range []struct {
		ids  []Identifier
		want Value
	}{
		{[]Identifier{pending("example.com")}, TempError},
		{[]Identifier{pending("x.example.com")}, TempError},
		{[]Identifier{pending("example.net")}, Fail},
		{[]Identifier{pending("example.com"), id("example.com", false)}, Pass},
		{[]Identifier{id("bad.example.com", true)}, TempError},
		{[]Identifier{id("bad.example.com", true), id("example.com", true)}, Pass},
		{[]Identifier{{}}, Fail},
	} {
		if res := New(&asking{zone: z}).Evaluate(t.Context(), mail.MustDomain("example.com"), tt.ids); res.Value != tt.want {
			t.Errorf("%+v: %+v", tt.ids, res)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("v=DMARC1; p=reject; rua=mailto:a@b.test!10m,https://x; sp=none; np=; psd=y; t=y; fo=1:d:s")
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := Parse(s)
		if !ok {
			return
		}
		if !slices.Contains([]Policy{None, Quarantine, Reject}, r.P) || policy(string(r.SP)) != r.SP || policy(string(r.NP)) != r.NP || !strings.ContainsRune("ynu", rune(r.PSD)) ||
			!isOptions(r.FailureOptions) || len(r.Reports) > maxReports || r.Unusable && len(r.Reports) > 0 {
			t.Fatalf("%+v", r)
		}
		for _, to := range r.Reports {
			if again, err := mail.ParsePath(to.String()); err != nil || again != to || to.IsZero() || !to.IsASCII() {
				t.Fatalf("%q", to)
			}
		}
		// A tag that nobody knows changes nothing (RFC 9989 §4.7).
		if more, ok := Parse(s + "; x=y"); len(s) < maxRecord-5 && (!ok || !reflect.DeepEqual(more, r)) {
			t.Fatalf("%+v became %+v", r, more)
		}
	})
}
