package main_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/foxcpp/go-mockdns"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

const external = `
[[plugin]]
name = "external"
use = "banner"
[plugin.settings]
mail = "incoming"
domains = ["example.org"]
subject_prefix = "[EXTERNAL]"
header = true
text = "Not from us."
html = "<p>Not from us.</p>"
`

const disclaimer = `
[[plugin]]
name = "disclaimer"
use = "banner"
[plugin.settings]
mail = "submitted"
domains = ["example.org"]
text = "Example Ltd"
`

// page is a message in plain text and HTML with an attachment; the marks are what is
// added to the subject, the text and the page.
func page(subject, text, html, pad string) string {
	return "From: alice@example.net\r\nTo: bob@example.org\r\nSubject: " + subject + "K\xc3\xa4se\r\n\tfolded  \r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=m\r\n\r\npreamble \t\r\n--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n" +
		"--a\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + text + "K=E4se =\r\nsoft\r\n" +
		"--a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body>" + html + "K\xc3\xa4se " + pad + "</body></html>\r\n--a--\r\n" +
		"--m\r\nContent-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n" + strings.Repeat("QUJD\r\n", 20+len(pad)) + "--m--\r\nepilogue"
}

// Mail from strangers is marked for those whom it concerns, every other byte stays, and
// what cannot be marked passes as it came.
func TestBannerExternal(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	g := start(t, strangers+strings.Replace(exampleTo(sink), `name = "example.org"`, "name = \"example.org\"\naliases = [\"other.example\"]", 1)+
		fmt.Sprintf("[[domain]]\nname = \"plain.example\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", sink.addr)+external)
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	const mark = "Not from us.\r\n\r\n"
	signed := "From: a@example.net\r\nSubject: s\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nsigned\r\n--s\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--s--\r\n"
	pad := strings.Repeat("0123456789\r\n", 20_000) // beyond what travels inline
	for name, tt := range map[string]struct{ in, bob, carol string }{
		"small":         {page("", "", "", ""), "X-External: yes\r\n" + page("[EXTERNAL] ", mark, "\r\n<p>Not from us.</p>\r\n", ""), page("", "", "", "")},
		"large":         {page("", "", "", pad), "X-External: yes\r\n" + page("[EXTERNAL] ", mark, "\r\n<p>Not from us.</p>\r\n", pad), page("", "", "", pad)},
		"forged":        {"X-External: no\r\n" + page("", "", "", ""), "X-External: yes\r\n" + page("[EXTERNAL] ", mark, "\r\n<p>Not from us.</p>\r\n", ""), page("", "", "", "")},
		"signed":        {signed, "X-External: yes\r\n" + strings.Replace(signed, "Subject: ", "Subject: [EXTERNAL] ", 1), signed},
		"no body":       {"Subject: x\r\n", "Subject: x\r\n", "Subject: x\r\n"},
		"no blank line": {"Subject: x", "Subject: x", "Subject: x"},
		"no header":     {"\r\ntext", "\r\ntext", "\r\ntext"},
		"text alone":    {"text: none", "text: none", "text: none"},
		"nothing else":  {"text\r\nalone", "\r\ntext\r\nalone", "\r\ntext\r\nalone"},
	} {
		n := len(sink.mail())
		c.message("alice@example.net", []string{"bob@example.org", "carol@plain.example"}, tt.in)
		want := map[string]string{"bob@example.org": tt.bob + "\r\n", "carol@plain.example": tt.carol + "\r\n"}
		if tt.bob == tt.carol { // one version, for both
			want["bob@example.org"] = want["carol@plain.example"]
		}
		got := map[string]string{}
		sink.wait(t, name, func(all []arrived) bool {
			for _, m := range all[n:] {
				for _, to := range m.To {
					got[to] = m.Data
				}
			}
			return len(got) == 2
		})
		for to, w := range want {
			if text := withoutReceived(got[to]); text != w {
				t.Errorf("%s, %s:\n%.900q\nwant\n%.900q", name, to, text, w)
			}
		}
	}
}

// withoutReceived takes our Received field out of a message, wherever it stands.
func withoutReceived(m string) string {
	return ourReceived.ReplaceAllString(m, "")
}

// What users send gets its disclaimer before it is signed: the signature verifies.
func TestBannerSigned(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	config := forwarding("elsewhere.test", "smtp://"+sink.Addr()) + disclaimer + withSigning
	dir, records := signing(t, config)
	config += published(t, records)
	g := startIn(t, dir, config)
	for i, tt := range []struct{ from, body string }{{"alice@example.org", "text\r\n\r\nExample Ltd\r\n"}, {"alice@example.com", "text\r\n"}} {
		domain := tt.from[len("alice@"):]
		g.deliver(tt.from, []string{"bob@elsewhere.test"}, "From: "+tt.from+"\r\nSubject: x\r\n\r\ntext")
		m := sink.Wait(t, i+1, patience)[i].Data
		algorithm := map[string]string{"example.org": "rsa-sha256", "example.com": "ed25519-sha256"}[domain]
		verified(t, tt.from, m, domain, algorithm, records)
		if _, body, _ := strings.Cut(string(m), "\r\n\r\n"); body != tt.body {
			t.Errorf("%s: %q", tt.from, body)
		}
	}
}

// check refuses a banner after what signs, with the names of both.
func TestBannerOrder(t *testing.T) {
	t.Parallel()
	base := forwarding("elsewhere.test", "smtp://192.0.2.1:25")
	dir, records := signing(t, base+withSigning)
	zone := published(t, records)
	for name, tt := range map[string]struct {
		config string
		fault  bool
	}{
		"before": {base + disclaimer + withSigning, false},
		"after":  {base + withSigning + disclaimer, true},
	} {
		out, code := postern(t, "", "check", "--config", write(t, dir, tt.config+zone))
		refused := strings.Contains(out, "plugin disclaimer may change messages after plugin dkim has signed them")
		if refused != tt.fault || (code != 0) != tt.fault {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
	}
}

// Mail from outside that is marked can be verified by its seal, and check refuses to mark
// it after that.
func TestBannerARC(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	dir := t.TempDir()
	out, code := postern(t, "", "dkim", "keygen", "example.org", "--selector", "arc", "--json", "--config", write(t, dir, basics))
	var r struct{ Name, Value string }
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("keygen: exit code %d\n%s", code, out)
	}
	zones, _ := authZones()
	zones[r.Name+"."] = mockdns.Zone{TXT: []string{r.Value}}
	dns := dnsServer(t, zones)
	const mailauth, seal = "[[plugin]]\nname = \"mailauth\"\n", "[[plugin]]\nname = \"arc\"\n[plugin.settings]\ndomain = \"example.org\"\n"
	g := startIn(t, dir, unrelayed(sink, dns, mailauth+external+seal))
	g.deliver("ann@pass.test", []string{"bob@example.org"}, "From: Ann <ann@pass.test>\r\nSubject: x\r\n\r\nbody")
	m := sink.Wait(t, 1, patience)[0].Data
	for _, want := range []string{"ARC-Seal: i=1;", "spf=pass", "Subject: [EXTERNAL] x\r\n", "X-External: yes\r\n", "\r\n\r\nNot from us.\r\n\r\nbody\r\n"} {
		if !strings.Contains(string(m), want) {
			t.Errorf("no %q in\n%s", want, m)
		}
	}
	if got := dkimpy(t, "arc", [][]byte{m}, map[string]string{r.Name: r.Value})[0]; got != "pass" {
		t.Errorf("the seal: %s\n%s", got, m)
	}
	out, code = postern(t, "", "check", "--config", write(t, dir, unrelayed(sink, dns, mailauth+seal+external)))
	if code != 1 || !strings.Contains(out, "plugin external may change messages after plugin arc has signed them") {
		t.Errorf("order: exit code %d\n%s", code, out)
	}
}
