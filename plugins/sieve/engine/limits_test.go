package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// run compiles and runs a script over a subject.
func runOver(t *testing.T, script, subject string, env Env) *Result {
	t.Helper()
	s, err := Compile([]byte(script), Options{})
	if err != nil {
		t.Fatal(err)
	}
	env.Now = time.Unix(1e9, 0)
	m := &Message{Header: mail.NewHeader([]byte("Subject: " + subject + "\r\n\r\n"))}
	r, err := s.Run(context.Background(), m, &env)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestV01V07 matches patterns that make other engines take for ever. What bounds them is counted work, which the
// result shows, not time.
func TestV01V07(t *testing.T) {
	long := strings.Repeat("a", 1<<20)
	for _, pattern := range []string{
		`:regex "subject" "(a+)+$"`, `:regex "subject" "(a|aa)*b"`, `:matches "subject" "*a*a*a*a*a*a*a*a*a*a*b"`,
		`:matches "subject" "*?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?ab*"`, `:contains "subject" "` + strings.Repeat("a", 1000) + `b"`,
	} {
		r := runOver(t, `require "regex"; if header `+pattern+` { discard; }`, long, Env{})
		if r.Fault != nil && !strings.Contains(r.Fault.Message, "too long") {
			t.Errorf("%.40s: %v", pattern, r.Fault)
		}
	}
	if _, err := Compile([]byte(`require "regex"; if header :regex "x" "((a{1000}){1000})" { discard; }`), Options{}); err == nil {
		t.Error("an enormous regular expression compiles")
	}
}

// TestV01Costs: what costs more than the bytes that are looked at is counted as what it costs.
func TestV01Costs(t *testing.T) {
	again := strings.Repeat
	parts := "Content-Type: multipart/mixed; boundary=b\r\n"
	body := again("--b\r\n\r\na\r\n", 900) + "--b--\r\n"
	for _, c := range []struct{ name, script, header, body string }{
		{"regular expression", `require "regex"; if header :regex "subject" "(a?.{0,400}){2}b$" {}`, "Subject: " + again("a", 20_000) + "\r\n", ""},
		{"its compilation", `require ["regex","variables"]; ` + again(`set "x" "${x}.{900}"; if header :regex "subject" "${x}" {}`, 4) + again(`set "x" "${x}."; if header :regex "subject" "${x}" {}`, 40), "Subject: x\r\n", ""},
		{"unicode", `require ["comparator-i;unicode-casemap"]; ` + again(`if header :contains :comparator "i;unicode-casemap" "subject" "zz" {}`, 20), "Subject: " + again("é", 25_000) + "\r\n", ""},
		{"lists", `require "foreverypart"; foreverypart { if header "x" [` + again(`"",`, 4000) + `""] {} }`, parts, body},
		{"values", again(`if header "x" "y" {}`, 100), again("X: z\r\n", 1000), ""},
		{"fields", again(`if header "y" "y" {}`, 2000), again("X: z\r\n", 2000), ""},
		{"addresses", again(`if address "to" "y" {}`, 100), "To: " + again("a@b.c,", 2000) + "d@e.f\r\n", ""},
		{"dates", `require "date"; ` + again(`if date "x" "year" "y" {}`, 100), again("X: Mon, 2 Jan 2006 15:04:05 -0700\r\n", 50), ""},
		{"parts", `require ["mime"]; ` + again(`if header :mime :anychild "x" "y" {}`, 50), parts, body},
		{"edits", `require "editheader"; ` + again(`addheader "x" "y";`, 100), again("X: z\r\n", 1000), ""},
		{"versions", `require "editheader"; ` + again(`addheader "x" "y"; keep;`, 40), again("X: z\r\n", 1000), ""},
		{"questions", `require "duplicate"; ` + again(`if duplicate :uniqueid "x" {}`, 1) + func() (s string) {
			for i := range 200 {
				s += fmt.Sprintf(`if duplicate :uniqueid "%d" {}`, i)
			}
			return s
		}(), "", ""},
	} {
		s, err := Compile([]byte(c.script), Options{Limits: Limits{Work: 8 << 20}})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		m := &Message{Header: mail.NewHeader([]byte(c.header + "\r\n")), Body: mail.InlineBody([]byte(c.body))}
		r, err := s.Run(context.Background(), m, &Env{Now: time.Unix(1e9, 0), Remembered: func(context.Context, string) (bool, error) { return false, nil }})
		if err != nil || r.Fault == nil || !strings.Contains(r.Fault.Message, "too long") {
			t.Errorf("%s: %v, %v", c.name, r, err)
		}
	}
}

// TestV01RegexSteps: how large one expression may be, and all of a script.
func TestV01RegexSteps(t *testing.T) {
	for _, c := range []struct {
		pattern string
		n       int
		fault   string
	}{
		{strings.Repeat(".{1000}", 4) + strings.Repeat(".", 90), 31, ""}, // 1+4*1001+90 = 4095
		{strings.Repeat(".{1000}", 4) + strings.Repeat(".", 91), 31, ""},
		{strings.Repeat(".{1000}", 4) + strings.Repeat(".", 92), 1, "more than 4096 steps"},
		{strings.Repeat(".{1000}", 4) + strings.Repeat(".", 91), 32, ""},
		{strings.Repeat(".{1000}", 4) + strings.Repeat(".", 91), 33, "too large together"},
		{"a" + strings.Repeat("*", 101), 1, ""},
		{"a" + strings.Repeat("*", 102), 1, "invalid nested repetition"},
		{"a" + strings.Repeat("*", 4000), 1, "invalid nested repetition"},
	} {
		_, err := Compile([]byte(`require "regex"; `+strings.Repeat(`if header :regex "x" "`+c.pattern+`" {}`, c.n)), Options{})
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%d of %d: %v", c.n, len(c.pattern), err)
		}
	}
}

// TestV03Bodies: what a script makes of the message does not fill the memory.
func TestV03Bodies(t *testing.T) {
	s, err := Compile([]byte(`require ["enclose","fileinto","variables"]; `+strings.Repeat(`enclose "x"; fileinto "a${n}"; set "n" "${n}1";`, 4)), Options{Limits: Limits{BodySize: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	for size, ok := range map[int]bool{500_000: true, 600_000: false} {
		m := &Message{Header: mail.NewHeader([]byte("Subject: s\r\n\r\n")), Body: mail.InlineBody([]byte(strings.Repeat("x", size)))}
		r, err := s.Run(context.Background(), m, &Env{Now: time.Unix(1e9, 0)})
		if err != nil || (r.Fault == nil) != ok {
			t.Errorf("%d bytes: %v, %v", size, r.Fault, err)
		}
	}
}

func TestV02V03(t *testing.T) {
	actions := func(n int, f string) string {
		var b strings.Builder
		b.WriteString(`require "fileinto"; `)
		for i := range n {
			fmt.Fprintf(&b, f, i)
		}
		return b.String()
	}
	for _, c := range []struct {
		n      int
		format string
		fault  string
	}{
		{4, `redirect "a%d@example.org"; `, ""},
		{5, `redirect "a%d@example.org"; `, "more than 4 redirects"},
		{100, `redirect "a%d@example.org"; `, "more than 4 redirects"},
		{32, `fileinto "b%d"; `, ""},
		{33, `fileinto "b%d"; `, "more than 32 actions"},
		{10_000, `fileinto "b%d"; `, "more than 32 actions"},
	} {
		r := runOver(t, actions(c.n, c.format), "x", Env{})
		switch {
		case c.fault == "" && (r.Fault != nil || len(r.Actions) != c.n):
			t.Errorf("%d of %s: %d actions, %v", c.n, c.format, len(r.Actions), r.Fault)
		case c.fault != "" && (r.Fault == nil || r.Fault.Message != c.fault || len(r.Actions) != 1 || !r.Actions[0].Implicit):
			t.Errorf("%d of %s: %v, %v", c.n, c.format, r.Actions, r.Fault)
		}
	}
}

func TestV04(t *testing.T) {
	chain := func(last int) Env {
		return Env{Script: func(_ context.Context, _, name string) ([]byte, error) {
			n := 0
			fmt.Sscanf(name, "s%d", &n)
			if n == last {
				return []byte("discard;"), nil
			}
			return fmt.Appendf(nil, `require "include"; include "s%d";`, n+1), nil
		}}
	}
	if r := runOver(t, `require "include"; include "s1";`, "x", chain(10)); r.Fault != nil || len(r.Actions) != 0 {
		t.Errorf("ten deep: %v", r.Fault)
	}
	if r := runOver(t, `require "include"; include "s1";`, "x", chain(11)); r.Fault == nil {
		t.Error("eleven deep: no fault")
	}
	many := `require "include"; ` + strings.Repeat(`include "s1";`, 256)
	if r := runOver(t, many, "x", chain(1)); r.Fault == nil || !strings.Contains(r.Fault.Message, "255") {
		t.Errorf("256 scripts: %v", r.Fault)
	}
}

func TestV05(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("if true {", n) + "stop;" + strings.Repeat("}", n) }
	tests := func(n int) string { return "if " + strings.Repeat("not ", n) + "true { stop; }" }
	for _, c := range []struct {
		script string
		ok     bool
	}{
		{nested(15), true}, {nested(32), true}, {nested(33), false}, {nested(10_000), false},
		{tests(31), true}, {tests(33), false}, {tests(100_000), false},
		{strings.Repeat(" ", 1<<20-5) + "stop;", true}, {strings.Repeat(" ", 1<<20-4) + "stop;", false},
		{`if header "x" [` + strings.Repeat(`"",`, 300_000) + `""] {}`, true},
	} {
		if _, err := Compile([]byte(c.script), Options{}); (err == nil) != c.ok {
			t.Errorf("%.20s... of %d bytes: %v", c.script, len(c.script), err)
		}
	}
}

func TestV06(t *testing.T) {
	script := `require ["variables","fileinto"]; set "a" "0123456789"; ` + strings.Repeat(`set "a" "${a}${a}"; `, 64) +
		`set :length "n" "${a}"; fileinto "${n}";`
	if r := runOver(t, script, "x", Env{}); r.Fault != nil || r.Actions[0].Mailbox != "65536" {
		t.Errorf("%+v, %v", r.Actions, r.Fault)
	}
}

// TestV08: names that leave a folder are up to whoever makes folders; what no name has is refused here.
func TestV08(t *testing.T) {
	for _, name := range []string{"a\\0b", strings.Repeat("x", 1025), "a\nb"} {
		r := runOver(t, `require ["fileinto","variables","encoded-character"]; set "n" "`+strings.ReplaceAll(name, "\\0", "${hex:00}")+`"; fileinto "${n}";`, "x", Env{})
		if r.Fault == nil || len(r.Actions) != 1 || r.Actions[0].Kind != Keep {
			t.Errorf("%q: %+v", name, r.Actions)
		}
	}
}

func TestV09(t *testing.T) {
	for _, value := range []string{"a\nBcc: y@example.org", "a\r\nBcc: y@example.org", "a${hex:0D}b", "a\x01b"} {
		r := runOver(t, `require ["editheader", "encoded-character"]; addheader "X" "`+value+`";`, "x", Env{})
		if r.Fault == nil {
			t.Errorf("%q: %q", value, r.Edited.Header.Block())
		}
	}
	r := runOver(t, `require ["editheader","variables"]; if header :matches "subject" "*" { addheader "X" "${1}"; }`, "=?utf-8?q?a=0D=0ABcc:_y?=", Env{})
	if r.Fault == nil {
		t.Errorf("from a subject: %q", r.Edited.Header.Block())
	}
}

// TestV11: a fault leaves an implicit keep, whatever was done before; what is not to be had now is no fault.
func TestV11(t *testing.T) {
	r := runOver(t, `require ["fileinto","ihave"]; fileinto "x"; discard; error "no";`, "x", Env{})
	if r.Fault == nil || r.Fault.Line != 1 || len(r.Actions) != 1 || !r.Actions[0].Implicit {
		t.Errorf("%+v, %v", r.Actions, r.Fault)
	}
	s, err := Compile([]byte(`require "duplicate"; if duplicate { discard; }`), Options{})
	if err != nil {
		t.Fatal(err)
	}
	env := &Env{Now: time.Now(), Remembered: func(context.Context, string) (bool, error) { return false, ErrTemporary }}
	m := &Message{Header: mail.NewHeader([]byte("Message-ID: <x>\r\n\r\n"))}
	if _, err := s.Run(context.Background(), m, env); !errors.Is(err, ErrTemporary) {
		t.Errorf("%v", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s, err := Compile([]byte(`if header :contains "subject" "b" { discard; }`), Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &Message{Header: mail.NewHeader([]byte("Subject: " + strings.Repeat("a", 1<<16) + "\r\n\r\n"))}
	if _, err := s.Run(ctx, m, &Env{Now: time.Now()}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestRemembers(t *testing.T) {
	const script = `require ["vacation","duplicate"]; vacation :days 3 "away"; if duplicate :uniqueid "${id}x" { discard; }`
	s, err := Compile([]byte(script), Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &Message{Header: mail.NewHeader([]byte("To: b@example.net\r\nSubject: x\r\n\r\n"))}
	memory := make(map[string]bool)
	env := &Env{From: "a@example.org", To: "b@example.net", Now: time.Now(),
		Remembered: func(_ context.Context, key string) (bool, error) { return memory[key], nil }}
	r, err := s.Run(context.Background(), m, env)
	if err != nil || render(r) != "vacation a@example.org; implicit keep" || len(r.Remember) != 2 {
		t.Fatalf("%s, %v, %v", render(r), r.Remember, err)
	}
	for _, mark := range r.Remember {
		memory[mark.Key] = true
		if len(mark.Key) > 64 {
			t.Errorf("a key of %d bytes", len(mark.Key))
		}
	}
	if r.Remember[0].Lifetime != 72*time.Hour {
		t.Errorf("for %s", r.Remember[0].Lifetime)
	}
	if r, _ := s.Run(context.Background(), m, env); render(r) != "" || len(r.Remember) != 0 {
		t.Errorf("the second time: %s, %v", render(r), r.Remember)
	}
	env.From = "other@example.org"
	if r, _ := s.Run(context.Background(), m, env); render(r) != "vacation other@example.org" {
		t.Errorf("to somebody else: %s", render(r))
	}
}

// TestNestedAngles: angle brackets within angle brackets are no address, and take no stack.
func TestNestedAngles(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 20))
	for _, s := range []string{"a <b <c@example.org>>", "<<c@example.org>>", strings.Repeat("<a", 1<<19), strings.Repeat("<@a:b", 1<<17), "a " + strings.Repeat("<a ", 1<<18) + "<b@example.org>"} {
		if list := parseAddresses(s); len(list) != 1 || !list[0].invalid {
			t.Errorf("%.30s: %d addresses", s, len(list))
		}
	}
	if list := parseAddresses("<a <b@example.org>>, c <d@example.org>"); len(list) != 1 || list[0].full != "d@example.org" {
		t.Errorf("%+v", list)
	}
}
