package dsn

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"
	"github.com/google/go-cmp/cmp"
	"github.com/postern-mail/postern/sdk/mail"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func options() Options {
	return Options{Hostname: "gw.example.org", Now: now, MessageID: "<report@gw.example.org>"}
}

func report(recipients ...Recipient) Report {
	return Report{
		ID: "0123456789abc", ReversePath: mail.MustPath("sender@example.org"), EnvelopeID: "QQ314159", Arrival: now.Add(-time.Hour),
		Header:     mail.NewHeader([]byte("From: sender@example.org\r\nTo: rcpt@example.net\r\nSubject: the subject\r\nMessage-ID: <m1@example.org>\r\n\r\n")),
		Body:       mail.InlineBody([]byte("the body\r\n.\r\n")),
		Recipients: recipients,
	}
}

func failed(addr string) Recipient {
	return Recipient{Path: mail.MustPath(addr), Action: Failed, LastAttempt: now.Add(-time.Minute),
		Status: mail.Permanent(550, 1, 1, "no such user here").WithRemote("mx.example.net")}
}

func build(t *testing.T, o Options, r Report) *Message {
	t.Helper()
	m, err := Build(o, r)
	if err != nil {
		t.Fatal(err)
	}
	check(t, m)
	return m
}

func bytesOf(m *Message) []byte { return append(bytes.Clone(m.Header.Block()), m.Body.Inline...) }

// check proves what holds for every report: line ends, line lengths, no controls, and
// 7-bit unless it says otherwise.
func check(t *testing.T, m *Message) {
	t.Helper()
	raw := bytesOf(m)
	if !sendable(raw) {
		t.Errorf("bare line ends, NUL, or a line above 998 octets in %.2000q", raw)
	}
	if !m.UTF8 && !isASCII(m.Header.Block()) || !m.EightBit && !isASCII(m.Body.Inline) {
		t.Error("8-bit octets, unannounced")
	}
	for line := range strings.SplitSeq(string(m.Header.Block()), "\r\n") {
		if len(line) > 998 {
			t.Error("long header line")
		}
	}
	if m.Header.Get("Auto-Submitted") != "auto-replied" || m.Header.Count("From") != 1 || m.Header.Count("To") != 1 || m.Header.Get("MIME-Version") != "1.0" {
		t.Errorf("header %q", m.Header.Block())
	}
}

// parsed is a report as another program reads it.
type parsed struct {
	types  []string
	texts  []string
	fields []textproto.Header // of the status part: the message, then each recipient
}

func parse(t *testing.T, m *Message) parsed {
	t.Helper()
	e, err := message.Read(bytes.NewReader(bytesOf(m)))
	if err != nil {
		t.Fatal(err)
	}
	typ, params, err := e.Header.ContentType()
	if err != nil || typ != "multipart/report" || !strings.HasSuffix(params["report-type"], "delivery-status") {
		t.Fatal(typ, params, err)
	}
	var p parsed
	mr := e.MultipartReader()
	for {
		part, err := mr.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		typ, _, _ := part.Header.ContentType()
		b, err := io.ReadAll(part.Body)
		if err != nil {
			t.Fatal(err)
		}
		p.types, p.texts = append(p.types, typ), append(p.texts, string(b))
	}
	if len(p.texts) != 3 {
		t.Fatalf("%d parts", len(p.texts))
	}
	if want := strings.TrimPrefix(p.types[1], "message/"); want != params["report-type"] {
		t.Errorf("report-type %s, part %s", params["report-type"], p.types[1])
	}
	for block := range strings.SplitSeq(strings.TrimSuffix(p.texts[1], "\r\n"), "\r\n\r\n") {
		h, err := textproto.ReadHeader(newReader(block + "\r\n\r\n"))
		if err != nil {
			t.Fatalf("%v in %q", err, block)
		}
		p.fields = append(p.fields, h)
	}
	return p
}

func golden(t *testing.T, name string, m *Message) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got := bytesOf(m)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s: %s", name, d)
	}
}

// TestL06Golden: the reports as people and machines get them.
func TestL06Golden(t *testing.T) {
	golden(t, "failed.eml", build(t, options(), report(failed("rcpt@example.net"))))

	r := report(failed("rcpt@example.net"), Recipient{Path: mail.MustPath(`"odd one"@example.com`), Original: mail.MustPath("alias@example.org"), ORCPT: "rfc822;first@example.org",
		Action: Expired, Status: mail.Temporary(451, 4, 1, "cannot connect to mx.example.com [192.0.2.1]:25: connection refused")})
	r.Return = mail.ReturnFull
	golden(t, "failed-full.eml", build(t, options(), r))

	r = report(Recipient{Path: mail.MustPath("rcpt@example.net"), Action: Delayed, WillRetryUntil: now.Add(96 * time.Hour),
		Status: mail.Temporary(450, 7, 1, "greylisted").WithRemote("192.0.2.9")})
	golden(t, "delayed.eml", build(t, options(), r))

	golden(t, "relayed.eml", build(t, options(), report(Recipient{Path: mail.MustPath("rcpt@example.net"), Action: Relayed,
		Status: mail.OK(250, 0, 0, "Ok: queued as X").WithRemote("mx.example.net")})))

	r = report(Recipient{Path: mail.MustPath("jürgen@example.net"), Action: Failed, Status: mail.Permanent(550, 1, 1, "jürgen gibt es nicht").WithRemote("mx.example.net")})
	r.UTF8, r.ReversePath = true, mail.MustPath("änne@example.org")
	r.Header = mail.NewHeader([]byte("From: änne@example.org\r\nSubject: Grüße\r\n\r\n"))
	golden(t, "utf8.eml", build(t, options(), r))
}

// TestParsesBack: another library reads what we wrote.
func TestParsesBack(t *testing.T) {
	r := report(failed("rcpt@example.net"), failed("second@example.net"))
	p := parse(t, build(t, options(), r))
	if d := cmp.Diff([]string{"text/plain", "message/delivery-status", "text/rfc822-headers"}, p.types); d != "" {
		t.Error(d)
	}
	if p.texts[2] != "From: sender@example.org\r\nTo: rcpt@example.net\r\nSubject: the subject\r\nMessage-ID: <m1@example.org>\r\n" {
		t.Errorf("%q", p.texts[2])
	}
	if !strings.Contains(p.texts[0], "postmaster@gw.example.org") || !strings.Contains(p.texts[0], "no such user here") {
		t.Errorf("%q", p.texts[0])
	}
	for i, want := range []map[string]string{
		{"Reporting-Mta": "dns; gw.example.org", "Original-Envelope-Id": "QQ314159", "Arrival-Date": "Wed, 04 Mar 2026 04:06:07 +0000"},
		{"Final-Recipient": "rfc822; rcpt@example.net", "Action": "failed", "Status": "5.1.1", "Remote-Mta": "dns; mx.example.net",
			"Diagnostic-Code": "smtp; 550 5.1.1 no such user here", "Last-Attempt-Date": "Wed, 04 Mar 2026 05:05:07 +0000"},
		{"Final-Recipient": "rfc822; second@example.net"},
	} {
		for k, v := range want {
			if got := p.fields[i].Get(k); got != v {
				t.Errorf("%d %s: %q, want %q", i, k, got, v)
			}
		}
	}
	if len(p.fields) != 3 {
		t.Error(len(p.fields))
	}
	r.Return = mail.ReturnFull
	p = parse(t, build(t, options(), r))
	if whole := string(r.Header.Block()) + string(r.Body.Inline); p.types[2] != "message/rfc822" || p.texts[2] != whole {
		t.Errorf("%s %q", p.types[2], p.texts[2])
	}
}

// TestL07OneReportForMany: a hundred failing recipients, one report.
func TestL07OneReportForMany(t *testing.T) {
	var list []Recipient
	for i := range 100 {
		list = append(list, failed(fmt.Sprintf("r%d@example.net", i)))
	}
	if p := parse(t, build(t, options(), report(list...))); len(p.fields) != 101 {
		t.Error(len(p.fields))
	}
}

// TestL04NoReport: never for the null reverse-path.
func TestL04NoReport(t *testing.T) {
	r := report(failed("rcpt@example.net"))
	r.ReversePath = mail.Path{}
	if _, err := Build(options(), r); err == nil {
		t.Error("built")
	}
	if _, err := Build(options(), report()); err == nil {
		t.Error("built for nobody")
	}
}

// TestL08Notify: who hears of what.
func TestL08Notify(t *testing.T) {
	sender := mail.MustPath("sender@example.org")
	actions := []Action{Failed, Expired, Delayed, Delivered, Relayed}
	for _, c := range []struct {
		n    mail.Notify
		want string
	}{
		{0, "yyynn"}, {mail.NotifyNever, "nnnnn"}, {mail.NotifyNever | mail.NotifyFailure, "nnnnn"}, {mail.NotifyFailure, "yynnn"},
		{mail.NotifyDelay, "nnynn"}, {mail.NotifySuccess, "nnnyy"}, {mail.NotifySuccess | mail.NotifyFailure, "yynyy"},
	} {
		got := ""
		for _, a := range actions {
			if Wanted(sender, c.n, a) {
				got += "y"
			} else {
				got += "n"
			}
			if Wanted(mail.Path{}, c.n, a) {
				t.Errorf("%d %s: for the null reverse-path or a copy", c.n, a)
			}
		}
		if got != c.want {
			t.Errorf("%d: %s, want %s", c.n, got, c.want)
		}
	}
	if Wanted(sender, mail.NotifySuccess|mail.NotifyFailure|mail.NotifyDelay, 0) {
		t.Error("an action that is none")
	}
	for _, c := range []struct {
		final, reports bool
		a              Action
		ok             bool
	}{{true, false, Delivered, true}, {false, false, Relayed, true}, {false, true, 0, false}} {
		if a, ok := SuccessAction(c.final, c.reports); a != c.a || ok != c.ok {
			t.Errorf("%+v: %v %v", c, a, ok)
		}
	}
}

// TestReturn: RET counts for failures only, and up to 50 kB.
func TestReturn(t *testing.T) {
	for _, c := range []struct {
		name   string
		ret    mail.Return
		action Action
		size   int // of the whole message
		want   string
	}{
		{"default", mail.ReturnDefault, Failed, 1000, "text/rfc822-headers"},
		{"HDRS", mail.ReturnHeaders, Failed, 1000, "text/rfc822-headers"},
		{"FULL", mail.ReturnFull, Failed, 1000, "message/rfc822"},
		{"FULL, expired", mail.ReturnFull, Expired, 1000, "message/rfc822"},
		{"FULL, delayed", mail.ReturnFull, Delayed, 1000, "text/rfc822-headers"},
		{"FULL, relayed", mail.ReturnFull, Relayed, 1000, "text/rfc822-headers"},
		{"limit-1", mail.ReturnFull, Failed, maxOriginal - 1, "message/rfc822"},
		{"limit", mail.ReturnFull, Failed, maxOriginal, "message/rfc822"},
		{"limit+1", mail.ReturnFull, Failed, maxOriginal + 1, "text/rfc822-headers"},
	} {
		r := report(failed("rcpt@example.net"))
		r.Recipients[0].Action, r.Return = c.action, c.ret
		r.Header = mail.NewHeader([]byte("Subject: x\r\n\r\n"))
		n := c.size - len(r.Header.Block())
		body := strings.Repeat(strings.Repeat("x", 98)+"\r\n", n/100)
		body += strings.Repeat("y", n-len(body))
		r.Body = mail.InlineBody([]byte(body))
		p := parse(t, build(t, options(), r))
		if p.types[2] != c.want {
			t.Errorf("%s: %s", c.name, p.types[2])
		}
		if c.want == "message/rfc822" && p.texts[2] != string(r.Header.Block())+body {
			t.Errorf("%s: content differs", c.name)
		}
	}
}

// TestHeaderCap: at most 50 kB of the header, whole fields only.
func TestHeaderCap(t *testing.T) {
	field := "X-Long: " + strings.Repeat("x", 990) + "\r\n" // 1000 octets
	for n, want := range map[int]int{50: 50, 51: 51, 52: 51, 1000: 51} {
		r := report(failed("rcpt@example.net"))
		r.Header = mail.NewHeader([]byte(strings.Repeat(field, n) + "\r\n"))
		p := parse(t, build(t, options(), r))
		if got := strings.Count(p.texts[2], field); got != want || len(p.texts[2]) != want*len(field) {
			t.Errorf("%d fields: %d returned, %d octets", n, got, len(p.texts[2]))
		}
	}
}

// TestOriginalThatCannotTravel: the report is well formed whatever the original is like.
func TestOriginalThatCannotTravel(t *testing.T) {
	for name, r := range map[string]func(*Report){
		"body gone": func(r *Report) { r.Body = mail.Body{Path: "/does/not/exist", Size: 10} },
		"bare LF":   func(r *Report) { r.Body = mail.InlineBody([]byte("a\nb\r\n")) },
		"long line": func(r *Report) { r.Body = mail.InlineBody([]byte(strings.Repeat("x", 999) + "\r\n")) },
		"bad fields": func(r *Report) {
			r.Header = mail.NewHeader([]byte("A: 1\nB: 2\r\nC: \x00\r\nD: " + strings.Repeat("y", 2000) + "\r\nE: 5\r\n\r\n"))
		},
		"no header":    func(r *Report) { r.Header = mail.Header{} },
		"odd header":   func(r *Report) { r.Header = mail.NewHeader([]byte("A: 1")) },
		"8-bit header": func(r *Report) { r.Header = mail.NewHeader([]byte("Subject: \xff\xfe\r\nMessage-ID: <a b@c>\r\n\r\n")) },
		"8-bit body":   func(r *Report) { r.Body = mail.InlineBody([]byte("\xe9\r\n")) },
		"odd Subject": func(r *Report) {
			r.Header = mail.NewHeader([]byte("Subject: a\x1b[31mb\r\nMessage-ID: <a@b>\x00\r\n\r\n"))
		},
		"nothing known": func(r *Report) {
			*r = Report{ReversePath: r.ReversePath, Recipients: []Recipient{{Path: mail.MustPath("x@y.test"), Action: Failed}}}
		},
	} {
		rep := report(failed("rcpt@example.net"))
		rep.Return = mail.ReturnFull
		r(&rep)
		m := build(t, options(), rep)
		p := parse(t, m)
		if strings.Contains(p.texts[0], "\x1b") {
			t.Errorf("%s: %q", name, p.texts[0])
		}
		if name == "bad fields" && p.texts[2] != "B: 2\r\nE: 5\r\n" {
			t.Errorf("%q", p.texts[2])
		}
		if name == "8-bit body" && (!m.EightBit || m.UTF8 || p.types[2] != "message/rfc822") {
			t.Errorf("%+v %v", m, p.types)
		}
	}
}

// TestA17Injection: no field of the envelope or a reply can begin another line.
func TestA17Injection(t *testing.T) {
	evil := "x\r\nX-Evil: 1\r\n\r\nX-Evil: 2\x00\u2028\u202e\xff"
	r := report(Recipient{Path: mail.MustPath("a@x.test"), ORCPT: "rfc" + evil + ";" + evil, Action: Failed,
		Status: mail.Status{Code: 550, Enhanced: [3]int{5, 1, 1}, Text: evil, Remote: evil}})
	r.EnvelopeID, r.ID = evil, "0123456789abc"
	r.Header = mail.NewHeader([]byte("Subject: =?utf-8?q?a=0D=0AX-Evil:_1?=\r\nMessage-ID: <" + evil + "@x>\r\n\r\n"))
	for _, utf8 := range []bool{false, true} {
		r.UTF8 = utf8
		m := build(t, options(), r)
		p := parse(t, m)
		for _, f := range p.fields {
			if f.Has("X-Evil") {
				t.Errorf("%q", p.texts[1])
			}
		}
		if len(p.fields) != 2 || m.Header.Has("X-Evil") || strings.Contains(p.texts[0], "\r\nX-Evil") {
			t.Errorf("%q", bytesOf(m))
		}
	}
}

// TestBoundaryInContent: the boundary occurs in no part, even where the sender foresaw it.
func TestBoundaryInContent(t *testing.T) {
	r := report(failed("rcpt@example.net"))
	r.Return = mail.ReturnFull
	boundary := func() string {
		m := build(t, options(), r)
		_, b, _ := strings.Cut(m.Header.Get("Content-Type"), `boundary="`)
		return strings.TrimSuffix(b, `"`)
	}
	first := boundary()
	r.Body = mail.InlineBody([]byte("--" + first + "--\r\n"))
	second := boundary()
	r.Body = mail.InlineBody([]byte("--" + first + "--\r\n--" + second + "\r\n"))
	if third := boundary(); first == second || second == third || first == third || first == "" {
		t.Errorf("%s %s %s", first, second, third)
	}
	p := parse(t, build(t, options(), r))
	if !strings.HasSuffix(p.texts[2], second+"\r\n") {
		t.Errorf("%q", p.texts[2])
	}
	o := options()
	o.MessageID = ""
	if a, b := build(t, o, r), build(t, o, r); a.Header.Get("Message-Id") == b.Header.Get("Message-Id") {
		t.Error("message ids repeat")
	}
}

// TestUTF8Forms of RFC 6533, and how a UTF-8 address shows in a report that is not UTF-8.
func TestUTF8Forms(t *testing.T) {
	r := report(Recipient{Path: mail.MustPath("ü@x.test"), ORCPT: "utf-8;ö@x.test", Action: Failed, Status: mail.Permanent(550, 1, 1, "nein, ü")})
	m := build(t, options(), r)
	p := parse(t, m)
	if m.UTF8 || p.fields[1].Get("Final-Recipient") != `utf-8; \x{FC}@x.test` || p.fields[1].Get("Original-Recipient") != `utf-8; \x{F6}@x.test` || p.types[1] != "message/delivery-status" {
		t.Errorf("%q", p.texts[1])
	}
	if p.fields[1].Get("Diagnostic-Code") != "x-postern; 550 5.1.1 nein, ?" {
		t.Errorf("%q", p.fields[1].Get("Diagnostic-Code"))
	}
	r.UTF8 = true
	m = build(t, options(), r)
	p = parse(t, m)
	if !m.UTF8 || p.fields[1].Get("Final-Recipient") != "utf-8; ü@x.test" || p.fields[1].Get("Original-Recipient") != "utf-8; ö@x.test" ||
		p.types[1] != "message/global-delivery-status" || p.types[2] != "message/global-headers" {
		t.Errorf("%q %q", p.types, p.texts[1])
	}
}

func TestLongDiagnostics(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 400), strings.Repeat("ab ", 133), strings.Repeat("ü", 200), strings.Repeat(" ", 390)} {
		r := report(failed("rcpt@example.net"))
		r.UTF8 = true
		r.Recipients[0].Status = mail.Permanent(550, 1, 1, text)
		r.EnvelopeID = strings.Repeat("e\x00", 400)
		p := parse(t, build(t, options(), r))
		if len(p.fields) != 2 || p.fields[1].Get("Status") != "5.1.1" {
			t.Errorf("%q", p.texts[1])
		}
	}
}

func FuzzBuild(f *testing.F) {
	f.Add("550 x\r\n", "rfc822;a@b", "env", "Subject: x\r\n\r\n", "body\r\n", true)
	f.Add("\x00", ";", "\r\n", "A: 1\nB: 2", "\n", false)
	f.Fuzz(func(t *testing.T, text, orcpt, envid, header, body string, utf8 bool) {
		r := report(Recipient{Path: mail.MustPath("a@x.test"), ORCPT: orcpt, Action: Failed, Status: mail.Status{Code: 550, Enhanced: [3]int{5, 0, 0}, Text: text, Remote: text}})
		r.EnvelopeID, r.Header, r.Body, r.UTF8, r.Return = envid, mail.NewHeader([]byte(header)), mail.InlineBody([]byte(body)), utf8, mail.ReturnFull
		m := build(t, options(), r)
		if p := parse(t, m); len(p.fields) != 2 {
			t.Fatalf("%q", p.texts[1])
		}
	})
}

func newReader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }
