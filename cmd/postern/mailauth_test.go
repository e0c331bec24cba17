package main_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/foxcpp/go-mockdns"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// dnsServer is a DNS server with these zones.
func dnsServer(t testing.TB, zones map[string]mockdns.Zone) string {
	t.Helper()
	s, err := mockdns.NewServerWithLogger(zones, quietDNS{}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.LocalAddr().String()
}

type quietDNS struct{}

func (quietDNS) Printf(string, ...any) {}

// unrelayed is a configuration in which nobody may relay, with a filter and a DNS server.
func unrelayed(sink *smtptest.Sink, dns, plugin string) string {
	config := forwarding("example.org", "smtp://"+sink.Addr())
	return strings.Replace(config, "127.0.0.0/8", "192.0.2.0/24", 1) + fmt.Sprintf("[dns]\nservers = [%q]\n", dns) + plugin
}

// authZones: domains whose policies say what their names say; 127.0.0.1 may send for
// pass.test alone.
func authZones() (map[string]mockdns.Zone, ed25519.PrivateKey) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	record := "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	z := map[string]mockdns.Zone{
		"pass.test.":              {TXT: []string{"v=spf1 ip4:127.0.0.1 -all"}},
		"_dmarc.pass.test.":       {TXT: []string{"v=DMARC1; p=reject"}},
		"1.0.0.127.in-addr.arpa.": {PTR: []string{"client.pass.test."}},
		"client.pass.test.":       {A: []string{"127.0.0.1"}},
	}
	for _, p := range []string{"none", "quarantine", "reject"} {
		z[p+".test."] = mockdns.Zone{TXT: []string{"v=spf1 -all"}}
		z["_dmarc."+p+".test."] = mockdns.Zone{TXT: []string{"v=DMARC1; p=" + p}}
		z["s1._domainkey."+p+".test."] = mockdns.Zone{TXT: []string{record}}
	}
	return z, key
}

// Policies at the wire, and the field at the next hop: one, at the top, whatever the
// message brings along.
func TestMailauth(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	zones, key := authZones()
	g := start(t, unrelayed(sink, dnsServer(t, zones), "[[plugin]]\nname = \"mailauth\"\n"))
	send := func(code int, from, text string) string {
		t.Helper()
		c := dial(t, g.addr[0])
		c.cmd(250, "EHLO client.pass.test")
		c.cmd(250, "MAIL FROM:<%s>", from)
		c.cmd(250, "RCPT TO:<bob@example.org>")
		c.cmd(354, "DATA")
		c.send(text + "\r\n.\r\n")
		reply := c.expect(code)
		c.cmd(221, "QUIT")
		return reply
	}
	form := "Authentication-Results: MX.example.org; dmarc=pass (forged)\r\nAuthentication-Results: other.test; spf=pass (not ours)\r\nFrom: Ann <ann@%s>\r\nSubject: x\r\n\r\nbody"
	arrived := 0
	field := func(domain string) string {
		t.Helper()
		arrived++
		m := sink.Wait(t, arrived, patience)[arrived-1].Data
		h, _ := mail.SplitMessage(m)
		if !strings.HasPrefix(string(m), "Authentication-Results: mx.example.org;") || bytes.Contains(m, []byte("forged")) || !bytes.Contains(m, []byte("not ours")) || h.Count("Authentication-Results") != 2 {
			t.Errorf("%s:\n%s", domain, m)
		}
		var s []string
		for _, r := range regexp.MustCompile(`; *([a-z]+=[a-z]+)`).FindAllStringSubmatch(strings.ReplaceAll(h.Get("Authentication-Results"), "\t", " "), -1) {
			s = append(s, r[1])
		}
		return strings.Join(s, " ")
	}

	send(250, "ann@pass.test", fmt.Sprintf(form, "pass.test"))
	if got := field("pass.test"); got != "iprev=pass spf=pass dkim=none dmarc=pass" {
		t.Errorf("pass.test: %s", got)
	}
	send(250, "ann@none.test", fmt.Sprintf(form, "none.test"))
	if got := field("none.test"); !strings.HasSuffix(got, "spf=fail dkim=none dmarc=fail") {
		t.Errorf("none.test: %s", got)
	}
	if reply := send(550, "ann@pass.test", fmt.Sprintf(form, "reject.test")); !strings.Contains(reply, "5.7.1") || !strings.Contains(reply, "DMARC policy of reject.test") {
		t.Errorf("reject.test: %s", reply)
	}
	var out bytes.Buffer
	err := dkim.Sign(&out, strings.NewReader(fmt.Sprintf(form, "reject.test")+"\r\n"), &dkim.SignOptions{Domain: "reject.test", Selector: "s1", Signer: crypto.Signer(key), HeaderKeys: []string{"From"}})
	if err != nil {
		t.Fatal(err)
	}
	send(250, "ann@none.test", strings.TrimSuffix(out.String(), "\r\n"))
	if got := field("reject.test, signed"); !strings.HasSuffix(got, "spf=fail dkim=pass dmarc=pass") {
		t.Errorf("reject.test, signed: %s", got)
	}
	id := queuedAs(t, send(250, "ann@quarantine.test", fmt.Sprintf(form, "quarantine.test")))
	q := g.queue()
	if len(q) != 1 || q[0].ID != id || q[0].State != "held" || !strings.Contains(q[0].Reason, "DMARC policy of quarantine.test") {
		t.Errorf("quarantine.test: %+v", q)
	}
	if n := len(sink.Messages()); n != arrived {
		t.Errorf("%d messages arrived, not %d", n, arrived)
	}
}

// Wrong settings are found by check, before anything is served.
func TestMailauthChecked(t *testing.T) {
	t.Parallel()
	file := write(t, t.TempDir(), forwarding("example.org", "smtp://192.0.2.1:25")+"[[plugin]]\nname = \"mailauth\"\n[plugin.settings]\ndmarc = \"always\"\n")
	if out, code := postern(t, "", "check", "--config", file); code != 1 || !strings.Contains(out, `"report" or "enforce"`) {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// What was seen in a day is reported when it is over, through the gateway's own queue.
func TestMailauthReports(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	zones, _ := authZones()
	zones["_dmarc.pass.test."] = mockdns.Zone{TXT: []string{"v=DMARC1; p=reject; rua=mailto:reports@example.org"}}
	zones["pass.test._report._dmarc.example.org."] = mockdns.Zone{TXT: []string{"v=DMARC1"}}
	config := unrelayed(sink, dnsServer(t, zones), "[[plugin]]\nname = \"mailauth\"\n[plugin.settings.reports]\nfrom = \"dmarc@example.org\"\n")
	dir := t.TempDir()
	g := startIn(t, dir, config)
	g.deliver("ann@pass.test", []string{"bob@example.org"}, "From: ann@pass.test\r\nSubject: x\r\n\r\nbody")
	sink.Wait(t, 1, patience)
	if code := g.stop(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	files, err := filepath.Glob(filepath.Join(dir, "data", "mailauth", "*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	yesterday := time.Now().UTC().Add(-25 * time.Hour).Format(time.DateOnly)
	if err := os.Rename(files[0], filepath.Join(filepath.Dir(files[0]), yesterday+".jsonl")); err != nil {
		t.Fatal(err)
	}
	startIn(t, dir, config)
	m := sink.Wait(t, 2, patience)[1]
	if m.From != "dmarc@example.org" || !bytes.Contains(m.Data, []byte("Subject: Report Domain: pass.test\r\n\tSubmitter: mx.example.org\r\n")) ||
		!bytes.Contains(m.Data, []byte("filename=\"mx.example.org!pass.test!")) {
		t.Errorf("from %s\n%s", m.From, m.Data)
	}
}

// What OpenDKIM signs as a milter of one gateway, and what our own plugin signs, the next
// gateway verifies, and DMARC passes by it alone.
func TestMailauthOpenDKIM(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	zones := map[string]mockdns.Zone{
		"example.org.":        {TXT: []string{"v=spf1 -all"}},
		"_dmarc.example.org.": {TXT: []string{"v=DMARC1; p=reject; adkim=s"}},
	}
	dir, records := signing(t, forwarding("elsewhere.test", "smtp://"+sink.Addr())+withSigning)
	for name, value := range records {
		zones[name+"."] = mockdns.Zone{TXT: []string{value}}
	}
	verifies := start(t, strings.Replace(unrelayed(sink, dnsServer(t, zones), "[[plugin]]\nname = \"mailauth\"\n"), `name = "example.org"`, `name = "elsewhere.test"`, 1))
	ours := startIn(t, dir, forwarding("elsewhere.test", "smtp://"+verifies.addr[0])+withSigning+published(t, records))
	key, err := os.ReadFile(filepath.Join(dir, "data", "dkim", "example.org.postern.pem"))
	if err != nil {
		t.Fatal(err)
	}
	signer := peertest.StartOpenDKIM(t, map[string]string{"key": string(key)}, "Mode s", "Domain example.org", "Selector postern", "KeyFile $DIR/key", "Canonicalization simple/simple")
	theirs := start(t, forwarding("elsewhere.test", "smtp://"+verifies.addr[0])+withMilter("opendkim", signer.Address, ""))
	for _, name := range []string{"plain", "folded", "8-bit", "trailing spaces", "long lines", "repeated", "MIME", "empty lines", "dots"} {
		text := fmt.Sprintf(signable[name], "example.org")
		for by, g := range map[string]*gateway{"our plugin": ours, "OpenDKIM": theirs} {
			n := len(sink.Messages())
			swaksOK(t, g.addr[0], "--from", "alice@example.org", "--to", "bob@elsewhere.test", "--no-data-fixup", "--data", "@"+wireFile(t, text))
			h, _ := mail.SplitMessage(sink.Wait(t, n+1, patience)[n].Data)
			got := h.Get("Authentication-Results")
			for _, want := range []string{"spf=fail", "dkim=pass (2048 bit key)", "header.d=example.org", "header.s=postern", "dmarc=pass"} {
				if !strings.Contains(got, want) {
					t.Errorf("%s, signed by %s: no %s in %s", name, by, want, got)
				}
			}
		}
	}
}

// The plugin keeps the contract of plugins, with a DNS that does not answer.
func TestMailauthContract(t *testing.T) {
	t.Parallel()
	settings := filepath.Join(t.TempDir(), "settings.toml")
	if err := os.WriteFile(settings, []byte("timeout = \"1s\"\n[reports]\nfrom = \"dmarc@example.org\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := postern(t, "", "plugin", "test", "--settings", settings, binary, "plugin", "serve", "mailauth"); code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
