package authres

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestFormat(t *testing.T) {
	for want, h := range map[string]Header{
		"mx.test; none":      {ID: "mx.test"},
		"mx.test 1; none":    {ID: "mx.test", Version: 1},
		"i=2; mx.test; none": {ID: "mx.test", Instance: 2},
		"mx.test;\r\n\tx=x":  {ID: "mx.test", Results: []Result{{}}},
		`"a b;c"; none`:      {ID: "a b;c"},
		"mx.test;\r\n\tspf=pass smtp.mailfrom=joe@example.org;\r\n\tdkim=pass (2048 bits) header.d=example.org header.i=@example.org\r\n\theader.b=\"ab/c\"": {ID: "mx.test", Results: []Result{
			{Method: "spf", Value: "pass", Props: []Prop{{"smtp", "mailfrom", "joe@example.org"}}},
			{Method: "dkim", Value: "pass", Comment: "2048 bits", Props: []Prop{{"header", "d", "example.org"}, {"header", "i", "@example.org"}, {"header", "b", "ab/c"}}},
		}},
		"mx.test;\r\n\tdkim/1=fail reason=\"no \\\"key\\\" \\\\ here\"": {ID: "mx.test", Results: []Result{
			{Method: "dkim", Version: 1, Value: "fail", Reason: `no "key" \ here`}}},
		"mx.test;\r\n\tspf=none (a\\)b\\(c\\\\d??) smtp.mailfrom=\"a b@x??Y: z\"": {ID: "mx.test", Results: []Result{
			{Method: "spf", Value: "none", Comment: "a)b(c\\d\r\n", Props: []Prop{{"smtp", "mailfrom", "a b@x\r\nY: z"}}}}},
	} {
		if got := h.Format(); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

// Google's own header, Microsoft's, and what RFC 8601's appendix B has.
func TestParse(t *testing.T) {
	prop := func(ptype, name, value string) Prop { return Prop{ptype, name, value} }
	tests := []struct {
		name, value string
		want        Header
	}{
		{"Google", "mx.google.com;\r\n       dkim=pass header.i=@gmail.com header.s=20230601 header.b=\"X/0+Ab1=\";\r\n       arc=pass (i=1 spf=pass spfdomain=a.test; dkim=pass (inner; nested) dkdomain=a.test);\r\n" +
			"       spf=pass (google.com: domain of joe@gmail.com designates 2607:f8b0::1 as permitted sender; yes) smtp.mailfrom=joe@gmail.com;\r\n" +
			"       dmarc=pass (p=NONE sp=QUARANTINE dis=NONE) header.from=gmail.com;\r\n       dara=pass header.i=@gmail.com",
			Header{ID: "mx.google.com", Results: []Result{
				{Method: "dkim", Value: "pass", Props: []Prop{prop("header", "i", "@gmail.com"), prop("header", "s", "20230601"), prop("header", "b", "X/0+Ab1=")}},
				{Method: "arc", Value: "pass"},
				{Method: "spf", Value: "pass", Props: []Prop{prop("smtp", "mailfrom", "joe@gmail.com")}},
				{Method: "dmarc", Value: "pass", Props: []Prop{prop("header", "from", "gmail.com")}},
				{Method: "dara", Value: "pass", Props: []Prop{prop("header", "i", "@gmail.com")}}}}},
		{"unquoted b", "mx.google.com; dkim=pass header.b=X/0+Ab1= header.d=a", Header{ID: "mx.google.com", Results: []Result{
			{Method: "dkim", Value: "pass", Props: []Prop{prop("header", "b", "X/0+Ab1="), prop("header", "d", "a")}}}}},
		{"Microsoft with id", "m.test; dmarc=pass action=none header.from=a.test;compauth=pass reason=100", Header{ID: "m.test", Results: []Result{
			{Method: "dmarc", Value: "pass", Props: []Prop{prop("", "action", "none"), prop("header", "from", "a.test")}},
			{Method: "compauth", Value: "pass", Reason: "100"}}}},
		{"B.2 none", "example.org 1; none", Header{ID: "example.org", Version: 1}},
		{"B.7 comments", "foo.example.net (foobar) 1 (baz);\r\n dkim (Because I like it) / 1 (One yay) = (wait for it) fail\r\n policy (A dot can go here) . (like that) expired\r\n (this surprised me) = (as I wasn't expecting it) 1362471462",
			Header{ID: "foo.example.net", Version: 1, Results: []Result{{Method: "dkim", Version: 1, Value: "fail", Props: []Prop{prop("policy", "expired", "1362471462")}}}}},
		{"B.6", "example.com;\r\n dkim=pass reason=\"good signature\"\r\n header.i=@mail-router.example.net;\r\n dkim=fail reason=\"bad signature\"\r\n header.i=@newyork.example.com",
			Header{ID: "example.com", Results: []Result{
				{Method: "dkim", Value: "pass", Reason: "good signature", Props: []Prop{prop("header", "i", "@mail-router.example.net")}},
				{Method: "dkim", Value: "fail", Reason: "bad signature", Props: []Prop{prop("header", "i", "@newyork.example.com")}}}}},
		{"B.5", "example.com; auth=pass (cram-md5) smtp.auth=sender@example.net; spf=fail smtp.mailfrom=example.net", Header{ID: "example.com", Results: []Result{
			{Method: "auth", Value: "pass", Props: []Prop{prop("smtp", "auth", "sender@example.net")}}, {Method: "spf", Value: "fail", Props: []Prop{prop("smtp", "mailfrom", "example.net")}}}}},
		{"quoted", `"a;b" ; auth=pass (cram-md5) smtp.auth="a \"b\" c"@x.test reason="because; of" ;`, Header{ID: "a;b", Results: []Result{
			{Method: "auth", Value: "pass", Reason: "because; of", Props: []Prop{prop("smtp", "auth", `a "b" c@x.test`)}}}}},
		{"upper case", "X.test; SPF=Pass SMTP.MailFrom=A@B", Header{ID: "X.test", Results: []Result{{Method: "spf", Value: "pass", Props: []Prop{prop("smtp", "mailfrom", "A@B")}}}}},
		{"empty value", "a; dkim=none header.d=", Header{ID: "a", Results: []Result{{Method: "dkim", Value: "none", Props: []Prop{prop("header", "d", "")}}}}},
	}
	for _, tt := range tests {
		got, err := Parse(tt.value)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s:\n%s", tt.name, d)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", ";", " ", "(c)", "a b; none", "a; =b", "a; spf", "a; spf=", "a; spf pass", "a; none x=y", "a; spf=pa(", `a; spf=pass reason="x`,
		"a; sp f=pass", "a; spf=pass x.y", "a; spf=p/q", "a 99999; none", "a\x00b; none", "a; spf=pass x.y=\x01", strings.Repeat("a", maxInput+1), "a " + strings.Repeat("(", 60) + strings.Repeat(")", 59),
		"a" + strings.Repeat(";x=y", maxResults+1), "a; spf=pass" + strings.Repeat(" a.b=c", maxProps+1)} {
		if h, err := Parse(s); err == nil {
			t.Errorf("%.40q: %+v", s, h)
		}
	}
	for _, s := range []string{"a; none", "i=0; a; none", "i=51; a; none", "i=x; a; none", "i=1", "i=1 a; none", "j=1; a; none"} {
		if h, err := ParseARC(s); err == nil {
			t.Errorf("%q: %+v", s, h)
		}
	}
	for _, s := range []string{"a" + strings.Repeat(";x=y", maxResults), "a; spf=pass" + strings.Repeat(" a.b=c", maxProps)} {
		if _, err := Parse(s); err != nil {
			t.Errorf("%.40q: %v", s, err)
		}
	}
}

func TestParseARC(t *testing.T) {
	h, err := ParseARC(" (c) i=3 (d); lists.example.org;\r\n spf=pass smtp.mailfrom=jqd@d1.example")
	if err != nil || h.Instance != 3 || h.ID != "lists.example.org" || len(h.Results) != 1 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestServID(t *testing.T) {
	for value, want := range map[string]string{
		"mx.test; spf=pass": "mx.test", " (a (b)) MX.test 1; x": "MX.test", "\"MX\\.test\"; arc=pass": "MX.test", "(mx.test) other; none": "other", "": "", "mx.test(c); ()(": "mx.test",
		"mx.test": "mx.test", "\r\n\tmx.test\r\n\t; none": "mx.test", "mx.test; \"": "mx.test", "m\"x.t\"est;": "mx.test", strings.Repeat("(", 60) + strings.Repeat(")", 60) + "a;": "a", "(" + strings.Repeat("x", maxInput) + ")a;": "a", "(": "", "mx.test\v; none": "mx.test", "\"mx.test": "mx.test", "a; " + strings.Repeat("x", maxInput): "a"} {
		if got := ServID(value); got != want {
			t.Errorf("%.40q: %q", value, got)
		}
	}
}

// Whatever the data, one field comes out, which reads back as what went in.
func FuzzFormat(f *testing.F) {
	f.Add("mx.test", "spf", "pass", "reason", "comment", "smtp", "mailfrom", "joe@example.org")
	f.Add("a\r\nb", "s f", "\x00", "a\"b\\", "((", ".", "=", "\xff\u2028é"+strings.Repeat("x", 1000))
	f.Fuzz(func(t *testing.T, id, method, value, reason, comment, ptype, name, text string) {
		h := Header{ID: id, Results: []Result{{Method: method, Value: value, Reason: reason, Comment: comment, Props: []Prop{{ptype, name, text}}}, {Method: "spf", Value: "none"}}}
		out := h.Format()
		line, err := mail.FormatField(FieldName, out)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.SplitSeq(string(line), "\r\n") {
			if len(l) > 998 || len(l) > 0 && strings.TrimSpace(l) == "" {
				t.Fatalf("a line of %d bytes in %q", len(l), out)
			}
		}
		if id == "" {
			return
		}
		got, err := Parse(out)
		if err != nil || len(got.Results) != 2 || got.Results[1].Method != "spf" {
			t.Fatalf("%q: %+v, %v", out, got, err)
		}
		if isPlain(id) && got.ID != id || isPlain(text) && got.Results[0].Props[0].Value != text {
			t.Fatalf("%q: %+v", out, got)
		}
	})
}

// Nothing that is parsed panics, and what was understood can be said again.
func FuzzParse(f *testing.F) {
	f.Add("mx.google.com; dkim=pass header.i=@gmail.com; spf=pass (a; (b)) smtp.mailfrom=\"a b\"@c")
	f.Add("i=1; a; none")
	f.Fuzz(func(t *testing.T, s string) {
		ServID(s)
		for _, parse := range []func(string) (Header, error){Parse, ParseARC} {
			h, err := parse(s)
			if err != nil {
				continue
			}
			if _, err := mail.FormatField(FieldName, h.Format()); err != nil {
				t.Fatal(err)
			}
			again, err := parse(h.Format())
			if err != nil || len(again.Results) != len(h.Results) {
				t.Fatalf("%q -> %q: %v", s, h.Format(), err)
			}
		}
	})
}

func TestSameID(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"mx.test", "MX.Test.", true}, {"b\u00fccher.test", "xn--bcher-kva.test", true}, {"B\u00dcCHER.test.", "xn--bcher-kva.test", true},
		{"mx_1.test", "MX_1.test", true}, {"a b", "A B", true}, {"mx.test", "mx.test.evil.test", false}, {"", "mx.test", false},
	} {
		if SameID(tt.a, tt.b) != tt.same || SameID(tt.b, tt.a) != tt.same {
			t.Errorf("%q and %q are not %v", tt.a, tt.b, tt.same)
		}
	}
}
