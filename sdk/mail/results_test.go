package mail

import (
	"strings"
	"testing"
)

func TestClaimsResults(t *testing.T) {
	claims := []string{
		"mx.example.org; dkim=pass", "mx.example.org", "MX.Example.ORG ; x", "mx.example.org.; x", "mx.example.org 1; x",
		"(comment (nested; \\) ) ) mx.example.org 1; x", "mx.example.org(c)1; x", "(;) mx.example.org; x", "(;a=b) mx.example.org; x",
		`"mx.example.org"; x`, `"MX\.example.org."; x`, `"mx.example.org;"; x`, `" mx.example.org"; x`,
		// Who matches by prefix believes these.
		"mx.example.org,foo; dkim=pass", "mx.example.org/1; x", "mx.example.org:25; x", "mx.example.org=1; x", "mx.example.org\x00; x", "mx.example.org\xff; x",
		"mx.example.org\u200e; x", "mx.example.org\u00a0; x", "mx.example.org foo.test; x",
		// Who looks further believes these.
		"foo, mx.example.org; x", "foo.test mx.example.org; x", "<mx.example.org>; x", "i=1; mx.example.org; dkim=pass", "; mx.example.org; x", "1; (c) \"mx.example.org\"; x", ";;mx.example.org",
		// What cannot be parsed.
		"mx.example.org (unclosed; dkim=pass", "(unclosed mx.example.org; dkim=pass", `"mx.example.org; dkim=pass`, `mx.example.org"; dkim=pass`, `" (; mx.example.org; x`,
		"other.test; x (mx.example.org", ") mx.example.org; x", `mx.example.org\; x`,
		// Other spellings of it.
		"mx .example.org; x", "mx. example . org; x", "mx(c).(c)example.org; x", "mx\t.\texample.org ;x", ".mx.example.org; x",
		"=?utf-8?q?mx.example.org?=; x", "=?utf-8?B?bXguZXhhbXBsZS5vcmc=?=; x", "=?koi8-r?q?mx=2Eexample?= =?x?q?.org?=; x", "=?utf-8?q?mx=2Eexample.org;?= x", "(=?utf-8?q?=28?=) =?us-ascii?q?=6Dx.example.org?=; x",
		"\uff4d\uff58\uff0eexample.org; x",
	}
	for _, v := range claims {
		if !ClaimsResults(v, "mx.example.org") {
			t.Errorf("stays: %q", v)
		}
	}
	stay := []string{
		"", ";", "none", "(unclosed", "other.test", "notmx.example.org; dkim=pass", "mx.example.org.evil.test; dkim=pass", "mx.example.organ; x", "a.mx.example.org; x",
		"mx-example.org; x", "-mx.example.org; x", "mx.example.org-1; x", "mx_example_org; x", "example.org; x", "xmx.example.org.; x", "\u00e9mx.example.org; x", "mx.example.org\u00e9; x",
		"(mx.example.org) other.test; dkim=pass", "other.test; spf=pass smtp.mailfrom=mx.example.org; dkim=pass header.d=mx.example.org",
		`other.test; iprev=pass policy.iprev="mx.example.org"; spf=pass (mx.example.org: allowed) smtp.helo=mx.example.org`,
		"=?utf-8?q?other.test?=; dkim=pass header.d=mx.example.org", "=?utf-8?B?!!?=; x",
		"mx.google.com;       dkim=pass header.i=@mx.example.org header.s=postern header.b=AbC/d+e1;       spf=pass (google.com: domain of ann@mx.example.org designates 192.0.2.1 as permitted sender) smtp.mailfrom=ann@mx.example.org;       dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=mx.example.org",
		"spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=example.net; dkim=pass (signature was verified) header.d=mx.example.org;dmarc=pass action=none header.from=mx.example.org;compauth=pass reason=100",
	}
	for _, v := range stay {
		if ClaimsResults(v, "mx.example.org") {
			t.Errorf("claims: %q", v)
		}
	}
	for _, v := range []string{"xn--bcher-kva.test; x", "b\u00fccher.test; x", "B\u00dcCHER\u3002test; x", "=?iso-8859-1?q?b=FCcher.test?=; x"} {
		if !ClaimsResults(v, "xn--bcher-kva.test") {
			t.Errorf("stays: %q", v)
		}
	}
	if ClaimsResults("bucher.test; x", "xn--bcher-kva.test") || ClaimsResults("x", "") {
		t.Error("claims")
	}
}

// H-01: what a field as large as a header may be costs at most.
func BenchmarkClaimsResults1M(b *testing.B) {
	for name, part := range map[string]string{"words": "a ", "labels": "\u00e9.\u00e9.\u00e9;", "comments": "(a)", "dots": " . ", "open": "((((", "encoded": "=?utf-8?q?=28?= "} {
		b.Run(name, func(b *testing.B) {
			value := strings.Repeat(part, 1<<20/len(part))
			for b.Loop() {
				ClaimsResults(value, "mx.example.org")
			}
		})
	}
}
