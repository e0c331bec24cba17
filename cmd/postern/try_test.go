package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tried is the contract of `postern try --json`: nothing less, nothing more.
type tried struct {
	Disposition *string `json:"disposition"`
	Reply       *struct {
		Code *int    `json:"code"`
		Text *string `json:"text"`
	} `json:"reply"`
	Plugins []struct {
		Name    *string            `json:"name"`
		Verdict *string            `json:"verdict"`
		Ms      *float64           `json:"ms"`
		Changed *bool              `json:"changed"`
		Scores  map[string]float64 `json:"scores"`
		Notes   map[string]string  `json:"notes"`
	} `json:"plugins"`
	Headers [][]string `json:"headers"`
	Routes  []struct {
		Recipient   *string `json:"recipient"`
		Disposition *string `json:"disposition"`
		NextHop     *string `json:"next_hop"`
	} `json:"routes"`
}

// attempt is a configuration to try messages with.
type attempt struct {
	t    testing.TB
	dir  string
	file string
}

func attemptWith(t testing.TB, config string) *attempt {
	dir := t.TempDir()
	return &attempt{t, dir, write(t, dir, config)}
}

// message writes a message file.
func (a *attempt) message(text string) string {
	a.t.Helper()
	f, err := os.CreateTemp(a.dir, "*.eml")
	if err != nil {
		a.t.Fatal(err)
	}
	defer f.Close()
	f.WriteString(text)
	return f.Name()
}

// json runs the command, which has to succeed, and reads its lines strictly.
func (a *attempt) json(args ...string) []tried {
	a.t.Helper()
	cmd := exec.Command(binary, append([]string{"try", "--json", "--config", a.file}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		a.t.Fatalf("try %s: %v\n%s%s", args, err, out.String(), errs.String())
	}
	var all []tried
	for line := range strings.Lines(out.String()) {
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		var r tried
		if err := d.Decode(&r); err != nil {
			a.t.Fatalf("%v in %s", err, line)
		}
		a.complete(r, line)
		all = append(all, r)
	}
	return all
}

// complete wants every key of the contract, with a value that it allows.
func (a *attempt) complete(r tried, line string) {
	a.t.Helper()
	words := []string{"deliver", "reject", "defer", "discard", "quarantine"}
	bad := r.Disposition == nil || !slices.Contains(words, *r.Disposition) || r.Reply == nil || r.Reply.Code == nil || *r.Reply.Code < 200 || *r.Reply.Code > 599 ||
		r.Reply.Text == nil || *r.Reply.Text == "" || r.Plugins == nil || r.Headers == nil || r.Routes == nil
	for _, p := range r.Plugins {
		bad = bad || p.Name == nil || p.Verdict == nil || p.Ms == nil || *p.Ms <= 0 || p.Changed == nil || p.Scores == nil || p.Notes == nil ||
			!slices.Contains([]string{"continue", "reject", "tempfail", "discard", "quarantine", "unscanned"}, *p.Verdict)
	}
	for _, h := range r.Headers {
		bad = bad || len(h) != 2
	}
	for _, route := range r.Routes {
		bad = bad || route.Recipient == nil || route.Disposition == nil || !slices.Contains(words, *route.Disposition) ||
			route.NextHop == nil || (*route.NextHop == "") != (*route.Disposition != "deliver")
	}
	if bad {
		a.t.Errorf("not as agreed: %s", line)
	}
}

// one is json for one message, with the usual envelope where none is given.
func (a *attempt) one(text string, args ...string) tried {
	a.t.Helper()
	if !slices.Contains(args, "--from") {
		args = append(args, "--from", "alice@a.test")
	}
	if !slices.Contains(args, "--to") {
		args = append(args, "--to", "bob@example.org")
	}
	got := a.json(append(args, a.message(text))...)
	if len(got) != 1 {
		a.t.Fatalf("%d lines", len(got))
	}
	return got[0]
}

// outcome is what was said about one message, in one line.
func (r tried) outcome() string {
	return fmt.Sprintf("%s %d %s", *r.Disposition, *r.Reply.Code, *r.Reply.Text)
}

// routes are "recipient disposition next-hop", joined by commas.
func (r tried) routes() string {
	var all []string
	for _, route := range r.Routes {
		all = append(all, strings.TrimSpace(*route.Recipient+" "+*route.Disposition+" "+*route.NextHop))
	}
	return strings.Join(all, ", ")
}

// verdicts are "name verdict changed" of each plugin.
func (r tried) verdicts() string {
	var all []string
	for _, p := range r.Plugins {
		s := *p.Name + " " + *p.Verdict
		if *p.Changed {
			s += " changed"
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func (r tried) header(name string) (values []string) {
	for _, h := range r.Headers {
		if h[0] == name {
			values = append(values, h[1])
		}
	}
	return values
}

func wantTried(t testing.TB, r tried, outcome, verdicts, routes string) {
	t.Helper()
	if got := r.outcome(); !strings.HasPrefix(got, outcome) {
		t.Errorf("outcome %q, want %q", got, outcome)
	}
	if got := r.verdicts(); got != verdicts {
		t.Errorf("plugins %q, want %q", got, verdicts)
	}
	if got := r.routes(); got != routes {
		t.Errorf("routes %q, want %q", got, routes)
	}
}

const nowhereOrg = "[[domain]]\nname = \"example.org\"\nrecipients = \"any\"\ndeliver = \"smtp://192.0.2.99:2525\"\n"

// Policy decides as it does in a session: access, relaying, recipients, sizes.
func TestTryPolicy(t *testing.T) {
	t.Parallel()
	a := attemptWith(t, basics+nowhereOrg+`
[[domain]]
name = "listed.test"
deliver = "lmtp://127.0.0.1:2424"
[[domain]]
name = "box.test"
deliver = "maildir"
recipients = "any"
[limits]
message_size = "64KiB"
[[access.clients]]
match = "198.51.100.0/24"
action = "reject"
text = "Not you"
[[access.senders]]
match = "spammer@a.test"
action = "reject"
`)
	text := "From: alice@a.test\nSubject: =?utf-8?q?a?=\n folded\n\nbody\n.dot\n"
	here := "smtp:192.0.2.99:2525"
	for name, c := range map[string]struct {
		args                      []string
		outcome, verdicts, routes string
	}{
		"deliver":                {nil, "deliver 250 2.0.0 Ok: queued as ", "", "bob@example.org deliver " + here},
		"null reverse-path":      {[]string{"--from", "<>"}, "deliver 250", "", "bob@example.org deliver " + here},
		"relaying":               {[]string{"--to", "x@elsewhere.test"}, "reject 550 5.7.1 Relaying denied", "", "x@elsewhere.test reject"},
		"from a relay network":   {[]string{"--to", "x@elsewhere.test", "--client", "127.0.0.9", "--helo", "pc.example.org"}, "deliver 250", "", "x@elsewhere.test deliver mx:elsewhere.test"},
		"logged in":              {[]string{"--from", "carol@example.org", "--to", "x@elsewhere.test", "--user", "carol@example.org"}, "reject 553 5.7.1", "", "x@elsewhere.test reject"},
		"unknown recipient":      {[]string{"--to", "nobody@listed.test"}, "reject 550 5.1.1 No such user here", "", "nobody@listed.test reject"},
		"one of several unknown": {[]string{"--to", "nobody@listed.test", "--to", "bob@example.org", "--to", "x@box.test"}, "deliver 250", "", "nobody@listed.test reject, bob@example.org deliver " + here + ", x@box.test deliver mailbox:maildir"},
		"client":                 {[]string{"--client", "198.51.100.7"}, "reject 554 5.7.1 Not you", "", "bob@example.org reject"},
		"sender":                 {[]string{"--from", "spammer@a.test"}, "reject 554 5.7.1 Sender address rejected", "", "bob@example.org reject"},
		"IPv6":                   {[]string{"--client", "2001:db8::1"}, "deliver 250", "", "bob@example.org deliver " + here},
		"SMTPUTF8":               {[]string{"--to", "jürgen@example.org"}, "deliver 250", "", "jürgen@example.org deliver " + here},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := (&attempt{t, t.TempDir(), a.file}).one(text, c.args...)
			wantTried(t, r, c.outcome, c.verdicts, c.routes)
			if delivered := *r.Disposition == "deliver"; delivered != (len(r.Headers) > 0) {
				t.Errorf("headers %v", r.Headers)
			}
			if s := r.header("Subject"); *r.Disposition == "deliver" && (len(s) != 1 || s[0] != "=?utf-8?q?a?= folded") {
				t.Errorf("subject %q", s)
			}
			if rec := r.header("Received"); *r.Disposition == "deliver" && (len(rec) != 1 || !strings.Contains(rec[0], "by mx.example.org (Postern) with")) {
				t.Errorf("received %q", rec)
			}
		})
	}
	for size, want := range map[int]string{64<<10 - 100: "deliver 250", 64 << 10: "reject 552 5.3.4 Message is too large"} {
		wantTried(t, a.one("Subject: size\n\n"+strings.Repeat("x\n", size/3)), want, "", map[bool]string{true: "bob@example.org deliver " + here, false: "bob@example.org reject"}[want == "deliver 250"])
	}
	for text, want := range map[string]string{"Subject: bare\r\rx\n\nbody": "reject 5", "": "deliver 250", "no header at all": "deliver 250", "\nonly a body": "deliver 250", "X: no body": "deliver 250"} {
		if r := a.one(text); !strings.HasPrefix(r.outcome(), want) {
			t.Errorf("%q: %s, want %s", text, r.outcome(), want)
		}
	}
	if rest, _ := os.ReadDir(filepath.Join(filepath.Dir(a.file), "data")); len(rest) > 0 {
		t.Errorf("left in the data directory: %v", rest)
	}
}

// Everything that a verdict can say has its words, and what is settled is what an SMTP client
// would be told.
func TestTryVerdicts(t *testing.T) {
	t.Parallel()
	here := "smtp:192.0.2.99:2525"
	two := []string{"--to", "r0@example.org", "--to", "r1@example.org"}
	for name, c := range map[string]struct {
		keys                      string
		do                        []string
		args                      []string
		outcome, verdicts, routes string
	}{
		"reject":     {"", []string{"verdict reject"}, nil, "reject 550 5.7.1 Refused by puppet", "p reject", "bob@example.org reject"},
		"tempfail":   {"", []string{"verdict tempfail"}, nil, "defer 450 4.7.1 Not now by puppet", "p tempfail", "bob@example.org defer"},
		"discard":    {"", []string{"verdict discard"}, nil, "discard 250", "p discard", "bob@example.org discard"},
		"quarantine": {"", []string{"verdict quarantine"}, nil, "quarantine 250", "p quarantine changed", "bob@example.org quarantine"},
		"unscanned":  {"", []string{"verdict unscanned"}, nil, "defer 451 4.3.0", "p unscanned", "bob@example.org defer"},
		"accepted unscanned": {`on_failure = "accept"`, []string{"verdict unscanned"}, nil, "deliver 250",
			"p unscanned changed", "bob@example.org deliver " + here},
		"parked":             {`on_failure = "park"`, []string{"verdict unscanned"}, nil, "defer 250", "p unscanned", "bob@example.org defer"},
		"refused":            {`on_failure = "reject"`, []string{"verdict unscanned"}, nil, "reject 554 5.3.0", "p unscanned", "bob@example.org reject"},
		"two outcomes":       {"", []string{"@1 verdict reject"}, two, "deliver 250", "p reject changed", "r0@example.org deliver " + here + ", r1@example.org reject"},
		"delivered and held": {"", []string{"@0 verdict quarantine"}, two, "deliver 250", "p quarantine changed", "r0@example.org quarantine, r1@example.org deliver " + here},
		"put off and refused": {"", []string{"@0 verdict reject", "@1 verdict tempfail"}, two, "defer 450 4.7.1", "p reject",
			"r0@example.org reject, r1@example.org defer"},
		"held and refused": {"", []string{"@0 verdict reject", "@1 verdict quarantine"}, two, "quarantine 250", "p reject changed",
			"r0@example.org reject, r1@example.org quarantine"},
		"another recipient": {"", []string{"rcpt+ carol@example.org"}, nil, "deliver 250", "p continue changed", "bob@example.org deliver " + here + ", carol@example.org deliver " + here},
		"one less":          {"", []string{"@1 rcpt- r1@example.org"}, two, "deliver 250", "p continue changed", "r0@example.org deliver " + here + ", r1@example.org discard"},
		"a copy":            {"", []string{"copy copy@example.org from@example.org"}, nil, "deliver 250", "p continue changed", "bob@example.org deliver " + here + ", copy@example.org deliver " + here},
		"body":              {"", []string{"body upper"}, nil, "deliver 250", "p continue changed", "bob@example.org deliver " + here},
		"gate, MAIL":        {"", nil, []string{"--from", "reject@a.test"}, "reject 550 5.7.1 Refused at MAIL", "p reject", "bob@example.org reject"},
		"gate, HELO":        {"", nil, []string{"--helo", "tempfail.test"}, "defer 450 4.7.1 Not now at HELO", "p tempfail", "bob@example.org defer"},
		"gate, RCPT": {"", nil, []string{"--to", "reject@example.org", "--to", "bob@example.org"}, "deliver 250", "p reject",
			"reject@example.org reject, bob@example.org deliver " + here},
		"gate fails": {"", nil, []string{"--from", "exit@a.test"}, "defer 451 4.3.0", "p unscanned", "bob@example.org defer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := attemptWith(t, strangers+nowhereOrg+puppet(t, "p", c.keys, ""))
			r := a.one(strings.ReplaceAll(puppeteer("body\n", c.do...), "\r\n", "\n"), c.args...)
			wantTried(t, r, c.outcome, c.verdicts, c.routes)
			if len(r.header("X-Do")) > 0 && *r.Disposition == "deliver" && c.keys == "" {
				t.Error("the plugin's edits do not show")
			}
			if strings.Contains(c.verdicts, "unscanned") && r.Plugins[0].Notes["unscanned"] == "" {
				t.Errorf("notes %v do not say why", r.Plugins[0].Notes)
			}
			if name == "accepted unscanned" && !slices.Equal(r.header("X-Postern-Unscanned"), []string{"p (told to)"}) {
				t.Errorf("headers %v", r.Headers)
			}
			if len(r.Plugins) != 1 || *r.Disposition == "deliver" && name != "gate fails" && r.Plugins[0].Notes["MAIL"] == "" {
				t.Errorf("notes %v", r.Plugins)
			}
		})
	}
}

// The plugins that come with the gateway, the directory, and somebody who has logged in.
func TestTryBuiltins(t *testing.T) {
	t.Parallel()
	config := basics + nowhereOrg + `
[[domain]]
name = "local.test"
deliver = "lmtp://127.0.0.1:2424"
[[plugin]]
name = "bcc"
[plugin.settings]
copies = {"example.org" = "archive@archive.test"}
` + withSigning
	dir, records := signing(t, config)
	a := &attempt{t, dir, write(t, dir, config+published(t, records))}
	if out, code := postern(t, "secret secret\n", "account", "add", "carol@local.test", "--password-stdin", "--config", a.file); code != 0 {
		t.Fatal(out)
	}
	if out, code := postern(t, "", "alias", "add", "carol@example.org", "carol@local.test", "--config", a.file); code != 0 {
		t.Fatal(out)
	}
	text := "From: carol@example.org\nBcc: hidden@a.test\nAuthentication-Results: mx.example.org; spf=pass\n\nbody\n"
	before := files(t, filepath.Join(dir, "data"))
	r := a.one(text, "--from", "carol@local.test", "--user", "carol@local.test", "--to", "bob@example.org")
	wantTried(t, r, "deliver 250", "bcc continue, dkim continue changed", "bob@example.org deliver smtp:192.0.2.99:2525, archive@archive.test deliver mx:archive.test")
	if len(r.header("DKIM-Signature")) != 1 || len(r.header("Bcc")) != 0 || len(r.header("Message-ID")) != 1 || len(r.header("Date")) != 1 || len(r.header("Authentication-Results")) != 0 {
		t.Errorf("headers %v", r.Headers)
	}
	if rec := r.header("Received"); len(rec) != 1 || !strings.Contains(rec[0], "with ESMTPSA") {
		t.Errorf("received %v", rec)
	}
	write(t, dir, config+published(t, nil)) // a DNS without the key
	r = a.one(text, "--from", "carol@local.test", "--user", "carol@local.test", "--to", "bob@example.org")
	wantTried(t, r, "deliver 250", "bcc continue, dkim continue", "bob@example.org deliver smtp:192.0.2.99:2525, archive@archive.test deliver mx:archive.test")
	if note := r.Plugins[1].Notes["unsigned"]; note != "the DNS does not have our key under postern._domainkey.example.org" {
		t.Errorf("note %q", note)
	}
	forged := a.one("From: dave@local.test\n\nbody\n", "--from", "carol@local.test", "--user", "carol@local.test", "--to", "bob@example.org")
	wantTried(t, forged, "reject 550 5.7.1 The address in From is not yours", "", "bob@example.org reject")
	wantTried(t, a.one(text, "--to", "carol@local.test"), "deliver 250", "bcc continue", "carol@local.test deliver lmtp:127.0.0.1:2424")
	wantTried(t, a.one(text, "--to", "dave@local.test"), "reject 550 5.1.1", "", "dave@local.test reject")
	if after := files(t, filepath.Join(dir, "data")); !maps.Equal(before, after) {
		t.Errorf("the data directory was %v, is %v", before, after)
	}
}

// What plugins keep in the data directory is there for a trial, and stays as it is.
func TestTryKeepsNothing(t *testing.T) {
	t.Parallel()
	a := attemptWith(t, strangers+nowhereOrg+puppet(t, "p", "", `count = "kept/by/count"`))
	data := filepath.Join(a.dir, "data")
	for path, size := range map[string]int{"kept/by/count": 5, "kept/large": 17 << 20, "mail/example.org/bob/new/1": 10, "queue/00000001.log": 10} {
		path = filepath.Join(data, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := files(t, data)
	for i, r := range a.json("--from", "ann@a.test", "--to", toBob, a.message("From: ann@a.test\n\nx"), a.message("From: ann@a.test\n\nx")) {
		if n := r.Plugins[0].Notes["count"]; *r.Disposition != "deliver" || n != fmt.Sprint(6+i) {
			t.Errorf("message %d: %s, count %q", i, r.outcome(), n)
		}
	}
	if after := files(t, data); !maps.Equal(before, after) {
		t.Error("the data directory is not what it was")
	}
}

// files are the files under a folder with their content, but what SQLite keeps beside its
// own while somebody reads.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, "-shm") {
			b, _ := os.ReadFile(path)
			out[path] = string(b)
		}
		return nil
	})
	return out
}
