package mailauth

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/foxcpp/go-mockdns"

	"github.com/postern-mail/postern/plugins/internal/authres"
	"github.com/postern-mail/postern/plugins/internal/resolve"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// zones is the DNS of most tests. The key of every domain is the same.
func zones() map[string]mockdns.Zone {
	z := map[string]mockdns.Zone{
		"none.test.":   {TXT: []string{"v=spf1 ip4:192.0.2.1 -all"}},
		"broken.test.": {Err: errors.New("SERVFAIL")},
	}
	for _, p := range []string{"none", "quarantine", "reject"} {
		d := p + ".test."
		z[d] = mockdns.Zone{TXT: []string{"v=spf1 ip4:192.0.2.1 -all"}}
		z["_dmarc."+d] = mockdns.Zone{TXT: []string{"v=DMARC1; p=" + p + "; rua=mailto:dmarc@" + p + ".test"}}
		z["mail."+d] = mockdns.Zone{A: []string{"192.0.2.1"}, TXT: []string{"v=spf1 a -all"}}
		z["s1._domainkey."+d] = mockdns.Zone{TXT: []string{keyRecord()}}
	}
	z["other.test."] = mockdns.Zone{TXT: []string{"v=spf1 ip4:192.0.2.0/24 -all"}}
	z["s1._domainkey.other.test."] = mockdns.Zone{TXT: []string{keyRecord()}}
	z["testing.test."] = mockdns.Zone{}
	z["_dmarc.testing.test."] = mockdns.Zone{TXT: []string{"v=DMARC1; p=reject; t=y"}}
	z["_dmarc.broken.test."] = mockdns.Zone{Err: errors.New("SERVFAIL")}
	z["softer.test."] = mockdns.Zone{TXT: []string{"v=spf1 include:broken.test -all"}}
	z["_dmarc.softer.test."] = mockdns.Zone{TXT: []string{"v=DMARC1; p=reject"}}
	return z
}

func testKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func keyRecord() string {
	return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(testKey().Public().(ed25519.PublicKey))
}

// quiet is the log of a DNS server that is asked for what fails.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// newPlugin is a configured plugin that asks a DNS server of the test's.
func newPlugin(t testing.TB, z map[string]mockdns.Zone, settings string) *Plugin {
	t.Helper()
	server, err := mockdns.NewServerWithLogger(z, quiet{}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	p := New()
	p.now = func() time.Time { return time.Date(2026, 5, 21, 12, 0, 0, 0, time.UTC) }
	config := sdk.Config{Settings: []byte(settings), Hostname: "mx.example.org", DataDir: t.TempDir(), DNSServers: []string{server.LocalAddr().String()}}
	if err := p.Configure(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	return p
}

func signed(t testing.TB, domain, wire string) string {
	t.Helper()
	var out bytes.Buffer
	err := dkim.Sign(&out, strings.NewReader(wire), &dkim.SignOptions{Domain: domain, Selector: "s1", Signer: crypto.Signer(testKey()),
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed, HeaderKeys: []string{"From", "Subject"}})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func message(from, ip, wire string) *mail.Message {
	h, body := mail.SplitMessage([]byte(wire))
	m := &mail.Message{Header: h, Body: mail.InlineBody(body)}
	m.Envelope = mail.Envelope{ID: "0c1f3k9w2m4xq", Origin: mail.Incoming, Recipients: []mail.Recipient{{Path: mail.MustPath("bob@example.org")}},
		Client: mail.Client{Addr: netip.MustParseAddr(ip), Helo: "mail.none.test"}}
	if from != "" {
		m.Envelope.ReversePath = mail.MustPath(from)
	}
	return m
}

const text = "From: Ann <ann@%s>\r\nSubject: hello\r\n\r\nHello Bob.\r\n"

// unfolded undoes the folding of a value.
func unfolded(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n\t", " "), "\r\n", "")
}

// results returns the parsed field that the verdict adds.
func results(t testing.TB, v *sdk.Verdict) authres.Header {
	t.Helper()
	var h mail.Header
	if err := sdktest.Apply(v, &h); err != nil {
		t.Fatal(err)
	}
	if h.Count(fieldName) != 1 {
		t.Fatalf("%d fields", h.Count(fieldName))
	}
	r, err := authres.Parse(h.Get(fieldName))
	if err != nil {
		t.Fatalf("%v in %s", err, h.Block())
	}
	return r
}

// What the author's domain wants is done where neither SPF nor DKIM vouch for it.
func TestPolicies(t *testing.T) {
	p := newPlugin(t, zones(), "")
	const good, bad = "192.0.2.1", "198.51.100.9"
	tests := []struct {
		name         string
		sender, ip   string
		wire         string
		action       sdk.Action
		spf, dkim    string
		dmarc, notes string // dmarc result, and notes as "name=value"
	}{
		{"SPF aligned", "ann@reject.test", good, "reject.test", sdk.ActionContinue, "pass", "none", "pass", "authenticated=spf"},
		{"SPF aligned, relaxed", "ann@mail.reject.test", good, "reject.test", sdk.ActionContinue, "pass", "none", "pass", ""},
		{"null reverse-path, HELO not aligned", "", good, "reject.test", sdk.ActionReject, "pass", "none", "fail", ""},
		{"null reverse-path, HELO aligned", "", good, "none.test", sdk.ActionContinue, "pass", "none", "pass", ""},
		{"SPF not aligned", "eve@other.test", good, "reject.test", sdk.ActionReject, "pass", "none", "fail", "authenticated=spf"},
		{"SPF fails", "ann@reject.test", bad, "reject.test", sdk.ActionReject, "fail", "none", "fail", "dmarc_policy=reject"},
		{"quarantine", "ann@quarantine.test", bad, "quarantine.test", sdk.ActionQuarantine, "fail", "none", "fail", ""},
		{"none", "ann@none.test", bad, "none.test", sdk.ActionContinue, "fail", "none", "fail", ""},
		{"no policy", "ann@other.test", bad, "other.test", sdk.ActionContinue, "fail", "none", "none", "from_domain=other.test"},
		{"testing", "ann@testing.test", bad, "testing.test", sdk.ActionQuarantine, "none", "none", "fail", "dmarc_policy=quarantine"},
		{"DKIM aligned", "ann@other.test", bad, "+reject.test", sdk.ActionContinue, "fail", "pass", "pass", ""},
		{"DKIM aligned with reverse-path", "ann@reject.test", bad, "+reject.test", sdk.ActionContinue, "fail", "pass", "pass", "authenticated=dkim"},
		{"policy unknown for now", "ann@other.test", bad, "broken.test", sdk.ActionContinue, "fail", "none", "temperror", ""},
		{"SPF unknown for now", "ann@softer.test", bad, "softer.test", sdk.ActionContinue, "temperror", "none", "temperror", ""},
		{"subdomain", "eve@other.test", bad, "a.b.reject.test", sdk.ActionReject, "fail", "none", "fail", ""},
		{"stranger's SPF unknown", "eve@broken.test", bad, "reject.test", sdk.ActionReject, "temperror", "none", "fail", ""},
	}
	for _, tt := range tests {
		wire := fmt.Sprintf(text, tt.wire)
		if d, ok := strings.CutPrefix(tt.wire, "+"); ok {
			wire = signed(t, d, fmt.Sprintf(text, d))
		}
		v, err := sdktest.Filter(t, p, Manifest(), message(tt.sender, tt.ip, wire))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := []string{v.Notes["spf"], v.Notes["dkim"], v.Notes["dmarc"]}
		if v.Action != tt.action || strings.Join(got, " ") != tt.spf+" "+tt.dkim+" "+tt.dmarc {
			t.Errorf("%s: %s, %v (%s)", tt.name, v.Action, got, results(t, v).Format())
		}
		if name, value, ok := strings.Cut(tt.notes, "="); ok && v.Notes[name] != value {
			t.Errorf("%s: notes %v", tt.name, v.Notes)
		}
		if tt.action == sdk.ActionReject && (v.Status.Code != 550 || v.Status.EnhancedString() != "5.7.1" || !strings.Contains(v.Status.Text, "DMARC policy of "+strings.TrimPrefix(tt.wire, "+"))) {
			t.Errorf("%s: %v", tt.name, v.Status)
		}
		for _, r := range results(t, v).Results {
			if want := map[string]string{"spf": tt.spf, "dkim": tt.dkim, "dmarc": tt.dmarc}[r.Method]; want != "" && r.Value != want {
				t.Errorf("%s: %s=%s", tt.name, r.Method, r.Value)
			}
		}
	}
}

func TestField(t *testing.T) {
	p := newPlugin(t, zones(), "authserv_id = 'auth.example.org'")
	m := message("ann@other.test", "192.0.2.1", signed(t, "reject.test", fmt.Sprintf(text, "reject.test")))
	m.Envelope.Client.Host = "mail.none.test"
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	want := `auth.example.org; iprev=pass (mail.none.test) policy.iprev=192.0.2.1; spf=pass (matched ip4:192.0.2.0/24) smtp.mailfrom=ann@other.test; ` +
		`dkim=pass header.d=reject.test header.i=@reject.test header.s=s1 header.a=ed25519-sha256 header.b=B; dmarc=pass (p=reject) header.from=reject.test policy.dmarc=reject`
	got := regexp.MustCompile(`header\.b="?[A-Za-z0-9/+]{8,}"?`).ReplaceAllString(unfolded(v.Edits[len(v.Edits)-1].Value), "header.b=B")
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// H-03: results in our name are removed, in whatever form; others' stay.
func TestH03ForgedResults(t *testing.T) {
	p := newPlugin(t, zones(), "authserv_id = 'Auth.example.org'")
	keep := "Authentication-Results: other.example.org; spf=pass\r\nAuthentication-Results: (auth.example.org) x.test; dkim=pass\r\nAuthentication-Results: auth.example.org.evil.test; none\r\n"
	forged := "authentication-results: auth.example.org; spf=pass\r\nAuthentication-Results: (a; (b)) \"AUTH\\.example.org\" 1; dkim=pass\r\nAuthentication-Results:\r\n auth.example.org.\r\n ; none\r\nAuthentication-Results: auth.example.org(x)\r\nAuthentication-Results: auth.example.org; ((\r\n" +
		"Authentication-Results: auth.example.org,x; dkim=pass\r\nAuthentication-Results: i=1; auth.example.org; dkim=pass\r\n" +
		"Authentication-Results: " + strings.Repeat("(", 60) + strings.Repeat(")", 60) + " auth.example.org; spf=pass\r\n" +
		"Authentication-Results: (" + strings.Repeat("x", 70<<10) + ") auth.example.org; spf=pass\r\n"
	m := message("ann@other.test", "192.0.2.1", forged+keep+forged+fmt.Sprintf(text, "other.test"))
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	h := m.Header
	if err := sdktest.Apply(v, &h); err != nil {
		t.Fatal(err)
	}
	if got := string(h.Block()); h.Count(fieldName) != 4 || !Manifest().OwnsField("Received-spf") || !strings.HasPrefix(got, "Authentication-Results: Auth.example.org;\r\n\tiprev=") || !strings.Contains(got, "\r\n"+keep) {
		t.Errorf("%s", got)
	}
	m = message("ann@other.test", "192.0.2.1", strings.Repeat("Authentication-Results: auth.example.org; spf=pass\r\n", maxRemoved+1)+keep+fmt.Sprintf(text, "other.test"))
	if v, err = sdktest.Filter(t, p, Manifest(), m); err != nil {
		t.Fatal(err)
	}
	h = m.Header
	if err := sdktest.Apply(v, &h); err != nil || h.Count(fieldName) != 1 {
		t.Errorf("%d fields, %v", h.Count(fieldName), err)
	}
}

// The field is one field whatever is in the message.
func TestNoInjection(t *testing.T) {
	p := newPlugin(t, zones(), "")
	m := message("", "192.0.2.1", "From: \"x\r\n y\" <a@reject.test;\r\n\tdmarc=pass>, <\"a;b\"@other.test>\r\nDKIM-Signature: v=1; a=rsa-sha256; d=a\"b;\r\n s=x\ty; i=\"\\\"@z; b=;;\r\n\r\nx")
	m.Envelope.Client.Helo = "x; dmarc=pass (a\r\nX: y"
	m.Envelope.Client.Host = "a)\r\nX-Evil: 1"
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results(t, v).Results {
		if r.Method == "dmarc" && r.Value == "pass" {
			t.Errorf("%+v", r)
		}
	}
	m = message("", "192.0.2.1", "From: a@other.test\r\n\r\nx")
	m.Envelope.ReversePath = mail.Path{Local: "a b\"; dmarc=pass (", Domain: mail.MustDomain("other.test")}
	if v, err = sdktest.Filter(t, p, Manifest(), m); err != nil {
		t.Fatal(err)
	}
	if r := results(t, v).Results; len(r) != 4 || r[1].Get("smtp", "mailfrom") != m.Envelope.ReversePath.String() {
		t.Errorf("%+v", r)
	}
}

func TestSettings(t *testing.T) {
	for settings, wrong := range map[string]string{
		"dmarc = 'maybe'":                               `"report" or "enforce"`,
		"reject_action = 'drop'":                        "reject_action",
		"temperror = 'x'":                               "temperror",
		"override = ['a b']":                            "neither a domain nor a network",
		"override = ['192.0.2.0/99']":                   "192.0.2.0/99",
		"trusted_sealers = ['']":                        "trusted_sealers",
		"max_signatures = 0":                            "max_signatures",
		"timeout = '1ms'":                               "timeout",
		"authserv_id = 'a b'":                           "authserv_id",
		"unknown = 1":                                   "unknown",
		"[reports]\norg = 'x'":                          "reports.from",
		"[reports]\nfrom = 'x'":                         "is not an address",
		"[reports]\nfrom = 'a@b.test'\norg = \"a\\nb\"": "one line",
		"[reports]\nunknown = 1":                        "reports.unknown",
		"override = ['a.test', '::1', '2001:db8::/32']\ndmarc = 'report'": "",
	} {
		p := New()
		err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings), Hostname: "mx.example.org", DataDir: t.TempDir()})
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%s: %v", settings, err)
		}
	}
}

// What the admin says comes before what the domain wants.
func TestOverrides(t *testing.T) {
	for settings, want := range map[string]struct {
		action sdk.Action
		why    string
	}{
		"":                                       {sdk.ActionReject, ""},
		"dmarc = 'report'":                       {sdk.ActionContinue, "not enforced"},
		"reject_action = 'quarantine'":           {sdk.ActionQuarantine, ""},
		"override = ['reject.test']":             {sdk.ActionContinue, "override for reject.test"},
		"override = ['test']":                    {sdk.ActionContinue, "override for test"},
		"override = ['198.51.100.0/24']":         {sdk.ActionContinue, "override for 198.51.100.0/24"},
		"override = ['::ffff:198.51.100.0/120']": {sdk.ActionContinue, "override for 198.51.100.0/24"},
		"override = ['x.test', '10.0.0.1']":      {sdk.ActionReject, ""},
	} {
		p := newPlugin(t, zones(), settings)
		v, err := sdktest.Filter(t, p, Manifest(), message("ann@reject.test", "::ffff:198.51.100.9", fmt.Sprintf(text, "reject.test")))
		if err != nil || v.Action != want.action || v.Notes["dmarc_action"] != want.why || v.Notes["dmarc"] != "fail" {
			t.Errorf("%q: %+v, %v", settings, v, err)
		}
	}
	p := newPlugin(t, zones(), "temperror = 'tempfail'")
	m := message("ann@other.test", "192.0.2.1", fmt.Sprintf(text, "broken.test"))
	if v, err := sdktest.Filter(t, p, Manifest(), m); err != nil || v.Action != sdk.ActionTempfail || v.Status.Code != 451 {
		t.Errorf("%+v, %v", v, err)
	}
	m.Envelope.Origin = mail.Fetched
	if v, err := sdktest.Filter(t, p, Manifest(), m); err != nil || v.Action != sdk.ActionContinue {
		t.Errorf("fetched: %+v, %v", v, err)
	}
	m = message("ann@reject.test", "198.51.100.9", fmt.Sprintf(text, "reject.test"))
	m.Envelope.Origin = mail.Fetched
	if v, err := sdktest.Filter(t, p, Manifest(), m); err != nil || v.Action != sdk.ActionContinue || v.Notes["dmarc_action"] != "fetched" {
		t.Errorf("fetched: %+v, %v", v, err)
	}
}

// A DNS that does not answer costs what was allowed, and is a temperror.
func TestSilentDNS(t *testing.T) { synctest.Test(t, testSilentDNS) }

func testSilentDNS(t *testing.T) {
	p := New()
	p.resolver = silent{}
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte("timeout = '200ms'"), Hostname: "mx.example.org", DataDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	start := time.Now() // as timers have it
	v, err := p.Filter(t.Context(), message("ann@reject.test", "192.0.2.1", signed(t, "reject.test", fmt.Sprintf(text, "reject.test"))))
	if err != nil || v.Notes["spf"] != "temperror" || v.Notes["dkim"] != "temperror" || v.Notes["dmarc"] != "temperror" {
		t.Errorf("%+v, %v", v, err)
	}
	if took := time.Since(start); took > 2*p.timeout {
		t.Errorf("took %s", took)
	}
}

// Whether the client's name leads back to it; the gateway's word for it is taken.
func TestIprev(t *testing.T) {
	z := zones()
	z["1.2.0.192.in-addr.arpa."] = mockdns.Zone{PTR: []string{"mail.none.test.", "x.none.test."}}
	z["2.2.0.192.in-addr.arpa."] = mockdns.Zone{PTR: []string{"mail.none.test."}}
	z["3.2.0.192.in-addr.arpa."] = mockdns.Zone{PTR: []string{"broken.test.", "absent.test."}}
	z["4.2.0.192.in-addr.arpa."] = mockdns.Zone{Err: errors.New("SERVFAIL")}
	p := newPlugin(t, z, "")
	for ip, want := range map[string]string{"192.0.2.1": "pass mail.none.test", "::ffff:192.0.2.1": "pass mail.none.test", "192.0.2.2": "fail ", "192.0.2.3": "temperror ", "192.0.2.4": "temperror ", "192.0.2.5": "permerror ", "2001:db8::1": "permerror "} {
		got := checkIprev(t.Context(), p.resolver, mail.Client{Addr: netip.MustParseAddr(ip)})
		if got.value+" "+got.name != want {
			t.Errorf("%s: %+v", ip, got)
		}
	}
	if got := checkIprev(t.Context(), p.resolver, mail.Client{Addr: netip.MustParseAddr("192.0.2.4"), Host: "a.test"}); got != (iprev{"pass", "a.test"}) {
		t.Errorf("%+v", got)
	}
	if got := checkIprev(t.Context(), p.resolver, mail.Client{}); got != (iprev{}) {
		t.Errorf("%+v", got)
	}
}

// What the DNS library says of our servers stays here.
func TestServersAreNotNamed(t *testing.T) {
	p := New()
	p.resolver = resolve.New([]string{"127.0.0.1:1"})
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte("timeout = '200ms'"), Hostname: "mx.example.org", DataDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	v, err := sdktest.Filter(t, p, Manifest(), message("ann@reject.test", "192.0.2.1", signed(t, "reject.test", fmt.Sprintf(text, "reject.test"))))
	if err != nil {
		t.Fatal(err)
	}
	if got := v.Edits[len(v.Edits)-1].Value; strings.Contains(got, "127.0.0.1") || strings.Contains(got, "lookup") || strings.Count(got, "the DNS does not answer") < 2 {
		t.Errorf("%s", got)
	}
}
