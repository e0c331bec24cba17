package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
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
	dir, _ := signing(t, config)
	a := &attempt{t, dir, filepath.Join(dir, "postern.toml")}
	if out, code := postern(t, "secret secret\n", "account", "add", "carol@local.test", "--password-stdin", "--config", a.file); code != 0 {
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

// A plugin that crashes, hangs, or breaks the contract is the failure policy's, in bounded
// time, and the next message is tried all the same.
func TestTryHostilePlugins(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"exit", "crash", "panic", "hang", "deaf", "error", "nothing", "undeclared", "giant", "stdout"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			a := attemptWith(t, hostile(t, &sink{addr: "192.0.2.99:25"}, "timeout = \"2s\"\non_failure = \"reject\""))
			bad, good := a.message("X-Do: "+what+"\n\nx"), a.message("Subject: fine\n\nx")
			got := a.json("--from", "a@a.test", "--to", "b@example.org", bad, good)
			if len(got) != 2 {
				t.Fatalf("%d lines", len(got))
			}
			convicted := what == "exit" || what == "crash"
			if d := *got[0].Disposition; d != "reject" && !(convicted && d == "quarantine") && what != "stdout" {
				t.Errorf("%s, plugins %s", got[0].outcome(), got[0].verdicts())
			} else if what != "stdout" && (got[0].verdicts() != "hostile unscanned" || got[0].Plugins[0].Notes["unscanned"] == "") {
				t.Errorf("plugins %s", got[0].verdicts())
			}
			if d := *got[1].Disposition; d != "deliver" {
				t.Errorf("the next message: %s, plugins %s %v", got[1].outcome(), got[1].verdicts(), got[1].Plugins[0].Notes)
			}
		})
	}
}

// What keeps a command from doing its work is said, with the exit code for it.
func TestTryFaults(t *testing.T) {
	t.Parallel()
	good := attemptWith(t, basics+nowhereOrg)
	file := good.message("Subject: x\n\nx")
	broken := attemptWith(t, basics+nowhereOrg+"[[plugin]]\nname = \"bcc\"\n")
	missing := attemptWith(t, basics+nowhereOrg+"[[plugin]]\nname = \"x\"\ncommand = \"/nonexistent/plugin\"\n")
	ok := []string{"--from", "a@a.test", "--to", "b@example.org"}
	for name, c := range map[string]struct {
		config string
		args   []string
		code   int
		says   string
	}{
		"no message":         {good.file, ok, 2, "usage"},
		"no envelope":        {good.file, []string{file}, 2, "--from"},
		"no recipient":       {good.file, []string{file, "--from", "a@a.test"}, 2, "--to"},
		"bad sender":         {good.file, []string{file, "--from", "a@@", "--to", "b@example.org"}, 2, "--from"},
		"bad recipient":      {good.file, []string{file, "--from", "", "--to", "b"}, 2, "--to"},
		"bad client":         {good.file, append([]string{file, "--client", "nobody"}, ok...), 2, "--client"},
		"bad HELO":           {good.file, append([]string{file, "--helo", "a\r\nMAIL"}, ok...), 2, "--helo"},
		"bad user":           {good.file, append([]string{file, "--user", "carol"}, ok...), 2, "--user"},
		"unknown flag":       {good.file, append([]string{file, "--nonsense"}, ok...), 2, "nonsense"},
		"no such file":       {good.file, append([]string{"/nonexistent.eml"}, ok...), 1, "/nonexistent.eml"},
		"a folder":           {good.file, append([]string{"/", file}, ok...), 1, "could not be tried"},
		"settings are wrong": {broken.file, append([]string{file}, ok...), 1, `plugin "bcc"`},
		"no such plugin":     {missing.file, append([]string{file}, ok...), 1, "/nonexistent/plugin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, code := postern(t, "", append(append([]string{"try"}, c.args...), "--config", c.config)...)
			if code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("exit code %d, want %d; want %q in\n%s", code, c.code, c.says, out)
			}
		})
	}
}

// Beside a gateway that runs on the same data nothing of it is disturbed or changed: not its
// plugins, its queue, its directory. What a plugin submits or stores is not kept.
func TestTryBesideAGateway(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	ask := func(name string, rights string) string {
		return fmt.Sprintf("[[plugin]]\nname = %q\ncommand = [%q, %q, %q]\n", name, program(t, "services"), rights, name)
	}
	g := start(t, strangers+exampleTo(out)+ask("s", "511"))
	a := &attempt{t, g.dir, g.file}
	g.deliver("a@a.test", []string{"b@example.org"}, "Subject: before\r\n\r\nx")
	out.wait(t, "the first", func(m []arrived) bool { return len(m) == 1 })
	g.drained()
	before := g.must("plugin", "status")
	msgs := []string{a.message("Subject: ask submit submitted\n\nx"), a.message("Subject: ask put value 0\n\nx"), a.message("Subject: ask get\n\nx"), a.message("Subject: plain\n\nx")}
	got := a.json(append([]string{"--from", "a@a.test", "--to", "alice@example.org"}, msgs...)...)
	if len(got) != len(msgs) {
		t.Fatalf("%d lines", len(got))
	}
	for i, want := range []string{"reject 550", "reject 550 5.7.0 1", "reject 550 5.7.0 value 1", "deliver 250"} {
		if r := got[i].outcome(); !strings.HasPrefix(r, want) || strings.Contains(r, "error") {
			t.Errorf("message %d: %s, want %s", i, r, want)
		}
	}
	if after := g.must("plugin", "status"); after != before || g.log.count("plugin ended", nil) > 0 {
		t.Errorf("plugins were\n%sare\n%s", before, after)
	}
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<a@a.test>")
	c.cmd(250, "RCPT TO:<alice@example.org>")
	c.cmd(354, "DATA")
	c.send("Subject: ask get\r\n\r\nx\r\n.\r\n")
	if text := c.expect(550); strings.Contains(text, "value") {
		t.Errorf("what a plugin stored in the trial is there: %s", text)
	}
	if q := g.queue(); len(q) > 0 {
		t.Errorf("in the queue: %v", q)
	}
	g.deliver("a@a.test", []string{"b@example.org"}, "Subject: after\r\n\r\nx")
	all := out.wait(t, "the last", func(m []arrived) bool { return len(m) == 2 })
	if !strings.Contains(all[1].Data, "Subject: after") {
		t.Errorf("arrived: %v", all)
	}
}

// A content filter outside is asked too: the trial takes back what it brings. Beside a
// gateway, which has the listener, that plugin fails, with the reason.
func TestTryContentFilter(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	f.script(func(h *handed) error {
		return h.return250(h.To, strings.Replace(h.Text, "Subject: ", "Subject: [seen] ", 1))
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.back = l.Addr().String()
	f.mu.Unlock()
	a := attemptWith(t, strangers+nowhereOrg+strings.Replace(withReinjection, "127.0.0.1:0", f.back, 1)+smtpfilter(f.addr, ""))
	r := a.one("Subject: x\n\nbody\n") // the listener is taken
	wantTried(t, r, "defer 451", "smtpfilter unscanned", "bob@example.org defer")
	if why := r.Plugins[0].Notes["unscanned"]; !strings.Contains(why, "filter") {
		t.Errorf("notes %v", r.Plugins[0].Notes)
	}
	l.Close()
	r = a.one("Subject: x\n\nbody\n")
	wantTried(t, r, "deliver 250", "smtpfilter continue changed", "bob@example.org deliver smtp:192.0.2.99:2525")
	if s := r.header("Subject"); len(s) != 1 || s[0] != "[seen] x" || len(r.header("X-Postern-Reinject")) > 0 {
		t.Errorf("headers %v", r.Headers)
	}
}

// For people: verdicts, what each plugin changed line by line, why, and where it goes; with
// nothing in it that steers a terminal.
func TestTryText(t *testing.T) {
	t.Parallel()
	a := attemptWith(t, strangers+nowhereOrg+puppet(t, "p", "", ""))
	file := a.message("X-Do: insert 0 X-New one\nX-Do: change 0 Subject other\nX-Do: body upper\nX-Do: copy c@example.org b@example.org\nSubject: \x1b[31mred\nX-Kept: yes\n\nbody\n")
	out, code := postern(t, "", "try", file, "--from", "a@a.test", "--to", "b@example.org", "--to", "x@elsewhere.test", "--config", a.file)
	if code != 0 || strings.ContainsRune(out, '\x1b') {
		t.Errorf("exit code %d\n%q", code, out)
	}
	for _, want := range []string{": deliver: 250 2.0.0 Ok", "<x@elsewhere.test>: 550 5.7.1 Relaying denied", "\n  gateway: incoming mail\n    + Received: from [192.0.2.1]",
		"\n  p: continue  ", "\n    + X-New: one\n", "\n    - Subject: ?[31mred\n    + Subject: other\n", "\n    - X-Do: body upper\n", "\n    a copy for <c@example.org>\n",
		"\n    note MAIL = ", "\n    <b@example.org> deliver via smtp:192.0.2.99:2525\n", "body: 6 -> 6 bytes", "at RCPT  for <b@example.org>"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "X-Kept") {
		t.Errorf("what did not change shows:\n%s", out)
	}
	out, code = postern(t, "", "try", file, "--from", "a@a.test", "--to", "b@example.org", "--without", "p", "--config", a.file)
	if code != 0 || strings.Contains(out, "\n  p: ") || !strings.Contains(out, "<b@example.org> deliver") {
		t.Errorf("without the plugin: exit code %d\n%s", code, out)
	}
	if out, code = postern(t, "", "try", file, "--from", "a@a.test", "--to", "b@example.org", "--without", "q", "--config", a.file); code != 2 || !strings.Contains(out, `"q"`) {
		t.Errorf("without one that is not there: exit code %d\n%s", code, out)
	}
	out, code = postern(t, "Subject: from standard input\n\nx", "try", "-", "--from", "", "--to", "b@example.org", "--config", a.file)
	if code != 0 || !strings.HasPrefix(out, "-: deliver") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
