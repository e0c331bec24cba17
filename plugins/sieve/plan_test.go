package sieve

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// configured is a plugin with settings and alice's script.
func configured(t *testing.T, settings, script string) (*Plugin, *sdktest.Host) {
	t.Helper()
	h := sdktest.NewHost(t)
	p := New()
	p.clock = func() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }
	config := sdk.Config{Settings: []byte(settings), Hostname: "mx.example.org", Postmaster: "postmaster@example.org", Host: h.Handle}
	if err := p.Configure(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if script != "" {
		if err := p.scripts.Put(t.Context(), alice, "main", []byte(script)); err != nil {
			t.Fatal(err)
		}
		if err := p.scripts.Activate(t.Context(), alice, "main"); err != nil {
			t.Fatal(err)
		}
	}
	return p, h
}

func message(text string) *mail.Message {
	h, body := mail.SplitMessage([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
	return &mail.Message{Header: h, Body: mail.InlineBody(body), Envelope: mail.Envelope{ID: "id1", Origin: mail.Incoming,
		ReversePath: mail.MustPath("bob@example.net"), Recipients: []mail.Recipient{{Path: alice}}}}
}

const hello = "From: bob@example.net\nTo: alice@example.org\nSubject: hello\nMessage-ID: <1@example.net>\n\nbody\n"

// said is a plan in words.
func said(t *testing.T, p *sdk.Plan) string {
	t.Helper()
	var out []string
	for _, a := range p.Actions {
		s := [...]string{"", "keep", "redirect", "discard", "reject", "vacation", "notify"}[a.Kind]
		for _, v := range []string{a.Folder, strings.Join(a.Flags, " "), a.Path.String(), a.Reason, a.Status.Text} {
			if v != "" {
				s += " " + v
			}
		}
		if a.Create {
			s += " create"
		}
		if a.Kind <= sdk.PlanRedirect && len(a.Header.Block()) > 0 {
			s += " header"
		}
		if !a.NewBody.IsZero() {
			s += fmt.Sprintf(" body(%d)", a.NewBody.Size)
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestPlan(t *testing.T) {
	all := `require ["fileinto", "mailbox", "imap4flags", "copy", "reject", "vacation", "enotify", "editheader", "replace", "special-use", "fcc", "environment", "spamtest", "relational", "comparator-i;ascii-numeric", "virustest"];` + "\n"
	for _, tt := range []struct{ name, script, want string }{
		{"none", "", "keep"},
		{"nothing", "#", "keep"},
		{"discard", "discard;", "discard discarded by the script main"},
		{"folders", `fileinto :create "A"; fileinto :copy :flags ["\\Seen", "$x"] "B";`, `keep A create; keep B \Seen $x`},
		{"inbox", `fileinto "inbox";`, "keep"},
		{"special use", `fileinto :specialuse "\\Junk" "Spam"; fileinto :specialuse "\\Flagged" "Other";`, "keep Junk; keep Other"},
		{"redirect", `redirect "a@example.com"; redirect :copy "Bob <b@example.com>";`, "redirect a@example.com; redirect b@example.com"},
		{"reject", "reject \"no\nnever\";", "reject no never"},
		{"header", `addheader "X" "y"; keep; deleteheader "X";`, "keep header"},
		{"body", `fileinto "A"; replace "new"; fileinto "B"; keep;`, "keep A; keep B header body(3); keep header body(3)"},
		{"fcc", `vacation :fcc "Sent" "away"; discard;`, "vacation; discard discarded by the script main; keep Sent header body(6)"},
		{"fcc of a notice beside reject", `reject "no"; notify :fcc "Sent" "mailto:a@example.com";`, "reject no; notify a@example.com; keep Sent header body(71)"},
		{"notify", `notify "mailto:a@example.com,b@example.com?subject=x"; discard;`, "notify a@example.com; notify b@example.com; discard discarded by the script main"},
		{"items", `if environment "location" "MDA" { fileinto "A"; } if environment :contains "host" "mx.example" { fileinto "B"; }`, "keep A; keep B"},
		{"spam", `if spamtest :value "ge" :comparator "i;ascii-numeric" "5" { fileinto "Junk"; } if virustest :value "eq" :comparator "i;ascii-numeric" "5" { discard; }`, "keep Junk"},
	} {
		script := tt.script
		if script != "" {
			script = all + script
		}
		p, _ := configured(t, "", script)
		m := message(hello)
		m.Scores, m.Notes = map[string]float64{"spam/percent": 80}, map[string]string{"antivirus/result": "clean"}
		plan, err := sdktest.Planner(t, p, Manifest(), m)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if got := said(t, plan); got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// A plan that is made again is the same, and what is remembered is asked for.
func TestPlanAgain(t *testing.T) {
	p, h := configured(t, "", `require "vacation"; vacation :handle "h" "away";`)
	first, err := sdktest.Planner(t, p, Manifest(), message(hello))
	if err != nil || len(first.Actions) != 2 || len(first.Remember) != 1 || first.Remember[0].Lifetime != 7*24*time.Hour {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := sdktest.Planner(t, p, Manifest(), message(hello))
	if err != nil || !reflect.DeepEqual(first, again) {
		t.Errorf("%+v\n%+v, %v", first, again, err)
	}
	other := message(hello)
	other.Envelope.ID = "id2"
	if different, _ := sdktest.Planner(t, p, Manifest(), other); different.Actions[0].Header.Get("Message-ID") == first.Actions[0].Header.Get("Message-ID") {
		t.Error("two replies have the same Message-ID")
	}
	h.Lock()
	h.Marks["alice@example.org "+first.Remember[0].Key] = true
	h.Unlock()
	if plan, err := sdktest.Planner(t, p, Manifest(), message(hello)); err != nil || said(t, plan) != "keep" {
		t.Errorf("%s, %v", said(t, plan), err)
	}
}

// A script of a sequence that contradicts an earlier one does nothing.
func TestPlanSequence(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	before := write("before", `require ["fileinto", "copy", "imap4flags"]; if header "Subject" "hello" { fileinto :copy "A"; keep :flags "\\Seen"; }`)
	p, h := configured(t, fmt.Sprintf("before = %q\n", before), `require "reject"; reject "no";`)
	plan, err := sdktest.Planner(t, p, Manifest(), message(hello))
	if err != nil || said(t, plan) != `keep A; notify alice@example.org; keep \Seen` || len(plan.Notes) != 1 || len(plan.Remember) != 1 {
		t.Errorf("%s, %+v, %v", said(t, plan), plan, err)
	}
	if !strings.Contains(string(plan.Actions[1].Body), "cannot be refused any more") {
		t.Errorf("told: %s", plan.Actions[1].Body)
	}
	h.Lock()
	lines := len(h.Lines)
	h.Unlock()
	if lines != 1 {
		t.Errorf("%d lines were logged", lines)
	}
	// A file that has changed is read again; with faults the one before stays.
	now := time.Now()
	p.files.clock = func() time.Time { return now }
	write("before", "discard;#")
	now = now.Add(time.Minute)
	if plan, _ := sdktest.Planner(t, p, Manifest(), message(hello)); said(t, plan) != "discard discarded by the script "+before {
		t.Error(said(t, plan))
	}
	write("before", "nonsense;")
	now = now.Add(time.Minute)
	for range 2 {
		if plan, _ := sdktest.Planner(t, p, Manifest(), message(hello)); said(t, plan) != "discard discarded by the script "+before {
			t.Error(said(t, plan))
		}
	}
	h.Lock()
	defer h.Unlock()
	if len(h.Lines) != 2 {
		t.Errorf("logged: %q", h.Lines)
	}
}

// What filters noted is for scripts of the admin; the owner's script does not see it.
func TestPlanFindings(t *testing.T) {
	script := func(folder string) string {
		return `require ["environment", "fileinto", "copy"]; if environment "vnd.postern.note.p/key" "x" { fileinto :copy "` + folder + `"; }
			if environment "vnd.postern.score.p/score" "-1.5" { fileinto :copy "` + folder + `/score"; }`
	}
	before := filepath.Join(t.TempDir(), "before")
	if err := os.WriteFile(before, []byte(script("Admin")), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := configured(t, fmt.Sprintf("before = %q\n", before), script("Owner"))
	m := message(hello)
	m.Notes, m.Scores = map[string]string{"p/Key": "x"}, map[string]float64{"p/score": -1.5}
	plan, err := sdktest.Planner(t, p, Manifest(), m)
	if got := said(t, plan); err != nil || got != "keep Admin; keep Admin/score; keep" {
		t.Errorf("%s, %v", got, err)
	}
}

// The settings and the name of the account count.
func TestPlanAccount(t *testing.T) {
	p, h := configured(t, "", `require "vacation"; vacation "away"; discard;`)
	for _, tt := range []struct {
		info sdk.AccountInfo
		want string
	}{
		{sdk.AccountInfo{DisplayName: "Alice Ä"}, "=?utf-8?b?QWxpY2Ugw4Q=?= <alice@example.org>"},
		{sdk.AccountInfo{Settings: map[string]string{"sieve": "on"}}, "alice@example.org"},
		{sdk.AccountInfo{Settings: map[string]string{"sieve": "off"}}, ""},
	} {
		tt.info.Address, tt.info.Enabled = alice, true
		h.Lock()
		h.Accounts[alice] = sdk.Account{Local: true, Targets: []mail.Path{alice}, Info: &tt.info}
		h.Unlock()
		plan, err := sdktest.Planner(t, p, Manifest(), message(hello))
		if err != nil {
			t.Fatal(err)
		}
		if tt.want == "" && said(t, plan) != "keep" || tt.want != "" && plan.Actions[0].Header.Get("From") != tt.want {
			t.Errorf("%+v: %s", tt.info, said(t, plan))
		}
	}
}

// What the gateway would not carry out is a fault of its script, and not a message that waits for ever.
func TestPlanTooMuch(t *testing.T) {
	many := func(n int, f func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(f(i))
		}
		return b.String()
	}
	notify := func(i int) string { return fmt.Sprintf("notify \"mailto:a%d@example.com\";", i) }
	duplicate := func(i int) string { return fmt.Sprintf("if duplicate :handle \"%d\" { discard; }", i) }
	for _, tt := range []struct {
		name, script string
		fault        bool
	}{
		{"6 messages", `require "enotify";` + many(6, notify), false},
		{"7 messages", `require "enotify";` + many(7, notify), true},
		{"80 marks", `require "duplicate";` + many(80, duplicate), false},
		{"81 marks", `require "duplicate";` + many(81, duplicate), true},
		{"bare CR", `require ["replace", "encoded-character"]; replace "a${hex:0D}b";`, true},
		{"NUL", "require [\"replace\", \"encoded-character\"]; replace :mime \"a${hex:00}b\";", true},
	} {
		p, _ := configured(t, "", tt.script)
		plan, err := sdktest.Planner(t, p, Manifest(), message(hello))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if (len(plan.Notes) > 0) != tt.fault || plan.Actions[len(plan.Actions)-1].Kind != sdk.PlanKeep {
			t.Errorf("%s: %s, notes %q", tt.name, said(t, plan), plan.Notes)
		}
	}
}

// A text that is gone or damaged keeps the mail, and the owner is told.
func TestPlanDamaged(t *testing.T) {
	p, h := configured(t, "", "discard;")
	script, _, err := p.scripts.Active(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	key := "alice@example.org " + textPrefix + script.id
	h.Lock()
	h.Data[key] = []byte("keep;")
	h.Unlock()
	check := func() {
		t.Helper()
		plan, err := sdktest.Planner(t, p, Manifest(), message(hello))
		if err != nil || said(t, plan) != "notify alice@example.org; keep" {
			t.Errorf("%v, %v", plan, err)
		}
	}
	check()
	h.Lock()
	delete(h.Data, key)
	h.Unlock()
	check()
}

func TestConfigureRefuses(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.sieve")
	if err := os.WriteFile(bad, []byte("require \"vacation\";\nnonsense;"), 0o600); err != nil {
		t.Fatal(err)
	}
	vacation := filepath.Join(t.TempDir(), "vacation.sieve")
	if err := os.WriteFile(vacation, []byte("require \"vacation\";"), 0o600); err != nil {
		t.Fatal(err)
	}
	for settings, want := range map[string]string{
		"before = \"/does/not/exist\"": "no such file", fmt.Sprintf("after = [%q]", bad): "line 2", fmt.Sprintf("gateway = %q", vacation): "unknown capability 'vacation'",
		"redirects = 33": "redirects", "[quota]\nscripts = 0": "quota.scripts", "delimiter = \"\"": "delimiter", "[domain.\"a b\"]\nbefore = \"\"": "a b", "nonsense = 1": "nonsense",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings), Hostname: "mx.example.org"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", settings, err)
		}
	}
}

// The cache is bounded, and keeps those used last.
func TestCompiledBounded(t *testing.T) {
	c := newCache((&Settings{Redirects: 4}).EngineOptions())
	c.limit = 3*(perScript+5) + 1
	asked := 0
	get := func(hash string) {
		if _, err := c.get(hash, func() ([]byte, error) { asked++; return []byte("keep;"), nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range []string{"a", "b", "c", "a", "d", "a", "c", "b"} {
		get(h)
	}
	if asked != 5 || c.order.Len() != 3 || c.size > c.limit {
		t.Errorf("asked %d times, %d are kept", asked, c.order.Len())
	}
}
