package mailauth

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foxcpp/go-mockdns"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// reporting is a plugin with a clock that can be moved, a gateway, and data in dir.
type reporting struct {
	*Plugin
	host *sdktest.Host
	time time.Time
	dir  string
}

func newReporting(t testing.TB, z map[string]mockdns.Zone, dir, settings string) *reporting {
	t.Helper()
	server, err := mockdns.NewServerWithLogger(z, quiet{}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	r := &reporting{Plugin: New(), host: sdktest.NewHost(t), time: time.Date(2026, 5, 21, 12, 0, 0, 0, time.UTC), dir: dir}
	r.now = func() time.Time { return r.time }
	if err := r.Configure(t.Context(), sdk.Config{Settings: []byte(settings), Hostname: "mx.example.org", DataDir: dir, Host: r.host.Handle, DNSServers: []string{server.LocalAddr().String()}}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reporting) open(t testing.TB) {
	t.Helper()
	if err := r.reports.open(r.time); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.reports.journal != nil {
			r.reports.close()
		}
	})
}

func (r *reporting) filter(t testing.TB, sender, ip, domain string) {
	t.Helper()
	if _, err := sdktest.Filter(t, r.Plugin, Manifest(), message(sender, ip, fmt.Sprintf(text, domain))); err != nil {
		t.Fatal(err)
	}
}

// submitted are the reports that were mailed, as "recipients: domain".
func (r *reporting) submitted() []string {
	r.host.Lock()
	defer r.host.Unlock()
	var out []string
	for _, s := range r.host.Submitted {
		domain := strings.Fields(s.Header.Get("Subject"))[2]
		for _, p := range s.Recipients {
			domain += " " + p.String()
		}
		out = append(out, domain)
	}
	return out
}

func reportZones() map[string]mockdns.Zone {
	z := zones()
	z["_dmarc.away.test."] = mockdns.Zone{TXT: []string{"v=DMARC1; p=none; rua=mailto:in@collector.test,mailto:in@reject.test"}}
	z["away.test._report._dmarc.collector.test."] = mockdns.Zone{TXT: []string{"v=DMARC1"}}
	z["_dmarc.late.test."] = mockdns.Zone{TXT: []string{"v=DMARC1; p=none; rua=mailto:in@slow.test"}}
	z["late.test._report._dmarc.slow.test."] = mockdns.Zone{Err: errors.New("SERVFAIL")}
	return z
}

const withReports = "[reports]\nfrom = 'dmarc@example.org'\norg = 'Example'"

// What was seen in a day is mailed when it is over, once, to those who may have it.
func TestReports(t *testing.T) {
	r := newReporting(t, reportZones(), t.TempDir(), withReports)
	r.filter(t, "ann@reject.test", "192.0.2.1", "reject.test") // before the service is active
	r.open(t)
	r.filter(t, "ann@reject.test", "192.0.2.1", "reject.test")
	r.filter(t, "eve@other.test", "198.51.100.9", "reject.test")
	r.filter(t, "ann@away.test", "192.0.2.1", "away.test")
	r.filter(t, "ann@late.test", "192.0.2.1", "late.test")
	r.filter(t, "ann@other.test", "192.0.2.1", "other.test")     // no policy
	r.filter(t, "ann@testing.test", "192.0.2.1", "testing.test") // wants no reports
	for _, at := range []time.Duration{time.Hour, 12 * time.Hour, 12*time.Hour + sendAfter - 1} {
		r.time = time.Date(2026, 5, 21, 12, 0, 0, 0, time.UTC).Add(at)
		r.sendDue(t.Context())
		if got := r.submitted(); len(got) != 0 {
			t.Fatalf("after %s: %q", at, got)
		}
	}
	r.time = time.Date(2026, 5, 22, 0, 10, 0, 0, time.UTC)
	want := []string{"away.test in@collector.test", "reject.test dmarc@reject.test"}
	for range 3 { // the one whose DNS fails is tried again, the others are not
		r.sendDue(t.Context())
		if got := r.submitted(); !slices.Equal(got, want) {
			t.Fatalf("mailed %q", got)
		}
	}
	r.time = r.time.Add(giveUp)
	r.sendDue(t.Context())
	if left, _ := os.ReadDir(filepath.Join(r.dir, "mailauth")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}

	r.host.Lock()
	defer r.host.Unlock()
	s := r.host.Submitted[1]
	if s.Origin != mail.Submitted || s.ReversePath.String() != "dmarc@example.org" || s.Header.Get("From") != "<dmarc@example.org>" {
		t.Errorf("%+v", s)
	}
	_, encoded, _ := strings.Cut(s.Body, "xml.gz\"\r\n\r\n")
	encoded, _, _ = strings.Cut(encoded, "--")
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(encoded)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	flat := strings.Join(strings.Fields(string(text)), "")
	for _, part := range []string{
		"<org_name>Example</org_name><email>dmarc@example.org</email>", "<domain>reject.test</domain><p>reject</p>",
		"<source_ip>192.0.2.1</source_ip><count>2</count><policy_evaluated><disposition>pass</disposition><dkim>fail</dkim><spf>pass</spf></policy_evaluated>",
		"<source_ip>198.51.100.9</source_ip><count>1</count><policy_evaluated><disposition>reject</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated>",
		"<spf><domain>other.test</domain><scope>mfrom</scope><result>fail</result></spf>",
	} {
		if !strings.Contains(flat, part) {
			t.Errorf("%v: no %s in\n%s", err, part, text)
		}
	}
}

// A crash between two reports costs none and repeats none.
func TestReportsAfterCrash(t *testing.T) {
	dir := t.TempDir()
	z := reportZones()
	r := newReporting(t, z, dir, withReports)
	r.open(t)
	r.filter(t, "ann@reject.test", "192.0.2.1", "reject.test")
	r.filter(t, "ann@none.test", "192.0.2.1", "none.test")
	r.time = time.Date(2026, 5, 22, 1, 0, 0, 0, time.UTC)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.sendDue(ctx) // the gateway cannot be asked
	if got := r.submitted(); len(got) != 0 {
		t.Fatalf("%q", got)
	}
	if err := r.reports.journal.MarkSent("2026-05-21", "none.test"); err != nil { // and so far it had come
		t.Fatal(err)
	}
	again := newReporting(t, z, dir, withReports)
	again.time = r.time
	again.open(t)
	again.sendDue(t.Context())
	if got := again.submitted(); !slices.Equal(got, []string{"reject.test dmarc@reject.test"}) {
		t.Errorf("%q", got)
	}
}

// The service keeps data also where nothing is mailed, and ends when it is told to. Without
// the service, as in a trial, nothing is kept.
func TestServe(t *testing.T) {
	r := newReporting(t, reportZones(), t.TempDir(), "")
	r.filter(t, "ann@reject.test", "192.0.2.1", "reject.test")
	if _, err := os.Stat(filepath.Join(r.dir, "mailauth")); !os.IsNotExist(err) {
		t.Errorf("a trial keeps something: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Serve(ctx, nil) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(filepath.Join(r.dir, "mailauth", "2026-05-21.jsonl")); err != nil || fi.Size() == 0 {
		t.Errorf("nothing is kept: %v", err)
	}
	if got := r.submitted(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// A folder that cannot be made costs the data and not the mail.
func TestNoRoomForData(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mailauth"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newReporting(t, reportZones(), dir, withReports)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Serve(ctx, nil); err != nil {
		t.Error(err)
	}
	for range maxPending + 1 {
		r.observe(&facts{}, decision{})
	}
	r.filter(t, "ann@reject.test", "192.0.2.1", "reject.test")
}
