package dmarcreport

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dmarc"
	"github.com/postern-mail/postern/sdk/mail"
)

var (
	noon   = time.Date(2026, 5, 21, 12, 0, 0, 0, time.UTC)
	sender = Sender{Hostname: "mx.example.org", Org: "Example <&> Org", Email: "postmaster@example.org", From: mail.MustPath("dmarc@example.org"), Generator: "test"}
)

func observed(domain, ip string) Observation {
	rec, _ := dmarc.Parse("v=DMARC1; p=reject; sp=none; adkim=s; t=y; rua=mailto:r@" + domain)
	return Observation{Published: PublishedBy(mail.MustDomain(domain), rec), Reports: rec.Reports, Row: Row{IP: ip, Disposition: "quarantine", SPF: false, DKIM: true, Override: "policy_test_mode", Comment: "a <b>",
		HeaderFrom: "sub." + domain, EnvelopeFrom: "other.test", SPFDomain: "other.test", SPFResult: "softfail",
		Signatures: [MaxSignatures]Signature{{Domain: domain, Selector: "s1", Result: "pass"}, {Domain: "x.test", Selector: "s", Result: "fail", Reason: "body"}}}}
}

func open(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func add(t testing.TB, j *Journal, now time.Time, os ...Observation) {
	t.Helper()
	for _, o := range os {
		if err := j.Add(now, o); err != nil {
			t.Fatal(err)
		}
	}
}

// Observations of two processes make one report for each domain, with rows that are counted;
// torn lines do no harm.
func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	a, b := open(t, dir), open(t, dir)
	add(t, a, noon, observed("a.test", "192.0.2.1"), observed("b.test", "192.0.2.1"))
	add(t, b, noon.Add(time.Hour), observed("a.test", "192.0.2.1"), observed("a.test", "2001:db8::1"))
	file := filepath.Join(dir, "2026-05-21.jsonl")
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("{\"p\":{\"d\":\"c.te\n\n{}\n" + strings.Repeat("x", 3*maxLine) + "\n")
	add(t, a, noon, observed("b.test", "192.0.2.9"))
	f.WriteString("{\"p\":{\"d\":\"torn.test\"}")
	f.Close()
	add(t, b, noon.Add(12*time.Hour), observed("a.test", "192.0.2.2")) // the next day
	if got := a.Finished(noon); len(got) != 0 {
		t.Errorf("finished at noon: %v", got)
	}
	if got := a.Finished(noon.Add(12 * time.Hour)); !slices.Equal(got, []string{"2026-05-21"}) {
		t.Errorf("finished: %v", got)
	}
	reports, err := open(t, dir).Reports("2026-05-21")
	if err != nil || len(reports) != 2 || reports[0].Published.Domain != "a.test" || reports[1].Published.Domain != "b.test" {
		t.Fatalf("%+v, %v", reports, err)
	}
	if rows := reports[0].rows; len(rows) != 2 || rows[observed("a.test", "192.0.2.1").Row] != 2 {
		t.Errorf("%v", rows)
	}
	if reports[0].Begin.Unix() != 1779321600 || reports[0].End.Unix() != 1779407999 {
		t.Errorf("%s to %s", reports[0].Begin, reports[0].End)
	}
}

func TestJournalBounds(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	add(t, j, noon, observed("a.test", "192.0.2.1"))
	if err := os.Truncate(filepath.Join(dir, "2026-05-21.jsonl"), maxFile-100); err != nil {
		t.Fatal(err)
	}
	if err := j.Add(noon, observed("a.test", "192.0.2.1")); !errors.Is(err, ErrFull) {
		t.Errorf("a full day: %v", err)
	}
	add(t, j, noon.AddDate(0, 0, 1), observed("a.test", "192.0.2.1"))
	os.WriteFile(filepath.Join(dir, "unrelated.txt"), nil, 0o600)
	if err := j.MarkSent("2026-05-21", "a.test"); err != nil {
		t.Fatal(err)
	}
	add(t, j, noon.AddDate(0, 0, maxAge), observed("a.test", "192.0.2.1"))
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"2026-05-22.jsonl", "2026-05-28.jsonl", "unrelated.txt"}; !slices.Equal(names, want) {
		t.Errorf("%v", names)
	}
	big := observed("a.test", "x")
	big.Row.Comment = strings.Repeat("x", maxLine)
	if err := j.Add(noon, big); err == nil {
		t.Error("a huge observation is taken")
	}
}

func TestSent(t *testing.T) {
	j := open(t, t.TempDir())
	for _, d := range []string{"a.test", "b.test"} {
		if err := j.MarkSent("2026-05-21", d); err != nil {
			t.Fatal(err)
		}
	}
	got, err := j.Sent("2026-05-21")
	if err != nil || len(got) != 2 || !got["a.test"] || !got["b.test"] {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := j.Sent("2026-05-22"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestConcurrentWriters(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		j := open(t, dir)
		for range 2 {
			wg.Go(func() {
				for range 50 {
					if err := j.Add(noon, observed("a.test", "192.0.2.1")); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	reports, err := open(t, dir).Reports("2026-05-21")
	if err != nil || len(reports) != 1 || reports[0].rows[observed("a.test", "192.0.2.1").Row] != 400 {
		t.Errorf("%+v, %v", reports, err)
	}
}

const wantXML = `<?xml version="1.0" encoding="UTF-8"?>
<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">
 <version>1.0</version>
 <report_metadata>
  <org_name>Example &lt;&amp;&gt; Org</org_name>
  <email>postmaster@example.org</email>
  <report_id>1779321600.a.test@mx.example.org</report_id>
  <date_range>
   <begin>1779321600</begin>
   <end>1779407999</end>
  </date_range>
  <generator>test</generator>
 </report_metadata>
 <policy_published>
  <domain>a.test</domain>
  <p>reject</p>
  <sp>none</sp>
  <adkim>s</adkim>
  <aspf>r</aspf>
  <discovery_method>treewalk</discovery_method>
  <fo>0</fo>
  <testing>y</testing>
 </policy_published>
 <record>
  <row>
   <source_ip>192.0.2.1</source_ip>
   <count>1</count>
   <policy_evaluated>
    <disposition>quarantine</disposition>
    <dkim>pass</dkim>
    <spf>fail</spf>
    <reason>
     <type>policy_test_mode</type>
     <comment>a &lt;b&gt;</comment>
    </reason>
   </policy_evaluated>
  </row>
  <identifiers>
   <header_from>sub.a.test</header_from>
   <envelope_from>other.test</envelope_from>
  </identifiers>
  <auth_results>
   <dkim>
    <domain>a.test</domain>
    <selector>s1</selector>
    <result>pass</result>
   </dkim>
   <dkim>
    <domain>x.test</domain>
    <selector>s</selector>
    <result>fail</result>
    <human_result>body</human_result>
   </dkim>
   <spf>
    <domain>other.test</domain>
    <scope>mfrom</scope>
    <result>softfail</result>
   </spf>
  </auth_results>
 </record>
</feedback>
`

func oneReport(t testing.TB) *Report {
	t.Helper()
	j := open(t, t.TempDir())
	add(t, j, noon, observed("a.test", "192.0.2.1"))
	all, err := j.Reports("2026-05-21")
	if err != nil || len(all) != 1 {
		t.Fatal(err)
	}
	return all[0]
}

func TestXML(t *testing.T) {
	got, err := oneReport(t).XML(sender)
	if err != nil || string(got) != wantXML {
		t.Errorf("%v\n%s", err, got)
	}
}

// The message as RFC 9990 wants it, whatever the data.
func TestMessage(t *testing.T) {
	r := oneReport(t)
	h, body, err := r.Message(sender, []mail.Path{mail.MustPath("a@a.test"), mail.MustPath("\"b c\"@a.test")}, noon.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	m, err := netmail.ReadMessage(io.MultiReader(bytes.NewReader(h.Block()), bytes.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	to, err := m.Header.AddressList("To")
	if err != nil || len(to) != 2 {
		t.Errorf("To: %v, %v", to, err)
	}
	if _, err := m.Header.Date(); err != nil {
		t.Error(err)
	}
	if s := strings.Join(strings.Fields(m.Header.Get("Subject")), " "); s != "Report Domain: a.test Submitter: mx.example.org Report-ID: <1779321600.a.test@mx.example.org>" {
		t.Errorf("Subject: %s", s)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if _, err := parts.NextPart(); err != nil {
		t.Fatal(err)
	}
	p, err := parts.NextPart()
	if err != nil || p.FileName() != "mx.example.org!a.test!1779321600!1779407999.xml.gz" || p.Header.Get("Content-Type") != "application/gzip" {
		t.Fatalf("%v, %v", p, err)
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, p))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || string(text) != wantXML {
		t.Errorf("%v\n%s", err, text)
	}
	for line := range bytes.Lines(body) {
		if !bytes.HasSuffix(line, []byte("\r\n")) || len(line) > 80 {
			t.Errorf("line %q", line)
		}
	}
}

// Nothing that a stranger says breaks the XML.
func FuzzXML(f *testing.F) {
	f.Add("a]]>\x00", "\xff\u2028<&", "]]&gt;")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		o := observed("a.test", "192.0.2.1")
		o.Row.Comment, o.Row.HeaderFrom, o.Row.Signatures[0].Selector = a, b, c
		r := &Report{Published: o.Published, rows: map[Row]int{o.Row: 1}}
		text, err := r.XML(sender)
		if err != nil {
			t.Fatal(err)
		}
		var back feedback
		if err := xml.Unmarshal(text, &back); err != nil || len(back.Records) != 1 {
			t.Fatalf("%v in %s", err, text)
		}
	})
}

// dns has TXT records; "SERVFAIL" is an error.
type dns map[string][]string

func (d dns) LookupTXT(_ context.Context, name string) ([]string, error) {
	txts, ok := d[name]
	if slices.Contains(txts, "SERVFAIL") {
		return nil, &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	}
	if !ok {
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	return txts, nil
}

func (d dns) Exists(context.Context, string) (bool, error) { return true, nil }

// External destinations have to agree (RFC 9990, Verifying External Destinations).
func TestDestinations(t *testing.T) {
	d := dns{
		"_dmarc.blue.example.com": {"v=DMARC1; p=none"}, "_dmarc.example.com": {"v=DMARC1; p=none"},
		"blue.example.com._report._dmarc.red.example.net":    {"v=DMARC1"},
		"blue.example.com._report._dmarc.any.example.net":    {"v=DMARC1;", "v=spf1 -all"},
		"blue.example.com._report._dmarc.moved.example.net":  {"v=DMARC1; rua=mailto:new@moved.example.net"},
		"blue.example.com._report._dmarc.loop.example.net":   {"v=DMARC1; rua=mailto:new@red.example.net"},
		"blue.example.com._report._dmarc.no.example.net":     {"no"},
		"blue.example.com._report._dmarc.broken.example.net": {"SERVFAIL"},
	}
	for wanted, want := range map[string]string{
		"r@blue.example.com":                      "r@blue.example.com",
		"r@example.com":                           "r@example.com",
		"r@other.example.com":                     "r@other.example.com",
		"r@red.example.net":                       "r@red.example.net",
		"r@any.example.net":                       "r@any.example.net",
		"r@moved.example.net":                     "new@moved.example.net",
		"r@loop.example.net":                      "",
		"r@no.example.net":                        "",
		"r@silent.example.net":                    "",
		"r@broken.example.net":                    "!",
		"r@broken.example.net r@example.com":      "r@example.com !",
		"r@no.example.net r@example.com":          "r@example.com",
		"r@example.com r@example.com":             "r@example.com",
		"r@" + strings.Repeat("a.", 115) + "test": "",
	} {
		var paths []mail.Path
		for _, w := range strings.Fields(wanted) {
			paths = append(paths, mail.MustPath(w))
		}
		to, err := Destinations(t.Context(), d, mail.MustDomain("blue.example.com"), paths)
		var got []string
		for _, p := range to {
			got = append(got, p.String())
		}
		if err != nil {
			got = append(got, "!")
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%.60s: %q", wanted, got)
		}
	}
}

// Whatever a crash or a full disk left of a day, what can be read of it makes reports.
func FuzzJournal(f *testing.F) {
	j := open(f, f.TempDir())
	add(f, j, noon, observed("a.test", "192.0.2.1"), observed("b.test", "2001:db8::1"), observed("a.test", "192.0.2.1"))
	day := noon.Format(dayForm)
	path := filepath.Join(j.dir, day+dataSuffix)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-2])
	f.Add([]byte("{\"p\":{\"d\":\"x\"},\"rua\":[{}],\"r\":{\"s\":[{},{\"d\":\"\\u0000\"}]}}\nnull\n[]\n{}\n\xff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		j := open(t, t.TempDir())
		if err := os.WriteFile(filepath.Join(j.dir, day+dataSuffix), text, 0o600); err != nil {
			t.Fatal(err)
		}
		reports, err := j.Reports(day)
		if err != nil {
			t.Fatal(err)
		}
		messages := 0
		for _, r := range reports {
			for _, n := range r.rows {
				messages += n
			}
			encoded, err := r.XML(sender)
			if err != nil {
				t.Fatal(err)
			}
			var back feedback
			if err := xml.Unmarshal(encoded, &back); err != nil || len(back.Records) != len(r.rows) || len(r.rows) == 0 {
				t.Fatalf("%v in %s", err, encoded)
			}
		}
		if lines := bytes.Count(text, []byte("\n")); messages > lines {
			t.Fatalf("%d messages of %d lines", messages, lines)
		}
	})
}
