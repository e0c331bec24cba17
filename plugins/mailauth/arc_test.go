package mailauth

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foxcpp/go-mockdns"

	"github.com/postern-mail/postern/plugins/internal/arcchain"
	"github.com/postern-mail/postern/plugins/internal/authres"
	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// sealer seals for a domain whose key is put into z.
func sealer(t testing.TB, z map[string]mockdns.Zone, domain string) func(wire, results string) string {
	t.Helper()
	dir, d := t.TempDir(), mail.MustDomain(domain)
	_, record, err := dkimkey.Generate(dir, d, "arc", "ed25519")
	if err != nil {
		t.Fatal(err)
	}
	z[record.Name+"."] = mockdns.Zone{TXT: []string{record.Value}}
	k, err := dkimkey.Load(dir, d, "arc")
	if err != nil {
		t.Fatal(err)
	}
	return func(wire, results string) string {
		h, err := authres.Parse(domain + "; " + results)
		if err != nil {
			t.Fatal(err)
		}
		header, body := mail.SplitMessage([]byte(wire))
		m := &mail.Message{Header: header, Body: mail.InlineBody(body)}
		set, err := new(arcchain.Sealer).Seal(t.Context(), m, k, arcchain.Pass, h, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range set.Fields {
			if err := m.Header.Prepend(f.Name, f.Value); err != nil {
				t.Fatal(err)
			}
		}
		return string(m.Header.Block()) + string(body)
	}
}

// A list that is trusted and saw DMARC pass is believed; others are not, and neither is a
// chain that does not hold.
func TestTrustedSealers(t *testing.T) {
	z := zones()
	list, hop, evil := sealer(t, z, "lists.test"), sealer(t, z, "hop.test"), sealer(t, z, "evil.test")
	const pass, other = "dmarc=pass header.from=reject.test", "dmarc=pass header.from=other.test"
	wire := fmt.Sprintf(text, "reject.test")
	p := newPlugin(t, z, "trusted_sealers = ['lists.test', 'HOP.test']")
	for name, tt := range map[string]struct {
		wire string
		want sdk.Action
		arc  string
	}{
		"no chain":                {wire, sdk.ActionReject, "none"},
		"trusted":                 {list(wire, pass), sdk.ActionContinue, "pass"},
		"both trusted":            {hop(list(wire, pass), "dmarc=fail header.from=reject.test"), sdk.ActionContinue, "pass"},
		"trusted, DMARC failed":   {list(wire, "dmarc=fail header.from=reject.test"), sdk.ActionReject, "pass"},
		"trusted, other author":   {list(wire, other), sdk.ActionReject, "pass"},
		"trusted, no DMARC":       {list(wire, "spf=pass"), sdk.ActionReject, "pass"},
		"not trusted":             {evil(wire, pass), sdk.ActionReject, "pass"},
		"not trusted, first":      {list(evil(wire, pass), "dmarc=fail header.from=reject.test"), sdk.ActionReject, "pass"},
		"not trusted, last":       {evil(list(wire, pass), pass), sdk.ActionReject, "pass"},
		"changed after the chain": {list(wire, pass) + "more\r\n", sdk.ActionReject, "fail"},
		"malformed":               {"ARC-Seal: i=1; cv=pass; d=lists.test\r\n" + wire, sdk.ActionReject, "fail"},
	} {
		v, err := sdktest.Filter(t, p, Manifest(), message("list@other.test", "198.51.100.9", tt.wire))
		if err != nil || v.Action != tt.want || v.Notes["arc"] != tt.arc {
			t.Errorf("%s: %+v, %v", name, v, err)
			continue
		}
		if (tt.want == sdk.ActionContinue) != strings.HasPrefix(v.Notes["dmarc_action"], "arc=pass, sealed by ") {
			t.Errorf("%s: notes %v", name, v.Notes)
		}
		shown := "none"
		for _, r := range results(t, v).Results {
			if r.Method == "arc" {
				shown = r.Value
			}
		}
		if shown != tt.arc {
			t.Errorf("%s: arc=%s", name, shown)
		}
	}
}

// A chain of fifty sets whose keys cannot be had costs no more look-ups than are allowed.
func TestM10LongChain(t *testing.T) {
	z := zones()
	wire := fmt.Sprintf(text, "none.test")
	for i := range 50 {
		wire = sealer(t, z, fmt.Sprintf("h%d.test", i))(wire, "spf=pass")
	}
	p := newPlugin(t, z, "")
	c := &counting{Resolver: p.resolver}
	p.resolver = c
	v, err := sdktest.Filter(t, p, Manifest(), message("ann@none.test", "192.0.2.1", wire))
	if err != nil || v.Notes["arc"] == "fail" {
		t.Errorf("%+v, %v", v, err)
	}
	if n := c.n.Load(); n > arcLookups+10 {
		t.Errorf("%d look-ups", n)
	}
}
