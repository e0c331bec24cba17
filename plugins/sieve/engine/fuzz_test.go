package engine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// seeds are the scripts of the cases.
func seeds(f *testing.F) []string {
	files, err := filepath.Glob("../../../testdata/sieve/*.cases")
	if err != nil || len(files) == 0 {
		f.Fatal("no cases: ", err)
	}
	var list []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, c := range strings.Split(string(text), "--- script\n")[1:] {
			script, _, _ := strings.Cut(c, "\n--- ")
			list = append(list, script)
		}
	}
	return list
}

// small are limits with which a fuzzer finds their ends.
var small = Limits{ScriptSize: 16 << 10, Nesting: 15, Actions: 8, VariableSize: 4 << 10, Variables: 16, Work: 4 << 20}

// FuzzParse: what parses is printed as something that parses into the same.
func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		tree, err := Parse([]byte(src), small)
		if err != nil {
			return
		}
		wide := small
		wide.ScriptSize = 1 << 20
		once := tree.Print()
		again, err := Parse([]byte(once), wide)
		if err != nil {
			t.Fatalf("%v in %q", err, once)
		}
		if twice := again.Print(); twice != once {
			t.Fatalf("%q became %q", once, twice)
		}
	})
}

// FuzzRun: no script and no message makes the engine panic, hang or break its limits.
func FuzzRun(f *testing.F) {
	for _, s := range seeds(f) {
		for _, message := range []string{sample, "Subject: no body\r\n\r\n", ""} {
			f.Add(s, message)
		}
	}
	f.Fuzz(func(t *testing.T, src, message string) {
		s, err := Compile([]byte(src), Options{Limits: small})
		if err != nil {
			return
		}
		h, body := mail.SplitMessage([]byte(message))
		include := func(_ context.Context, _, name string) ([]byte, error) {
			if len(name) > 3 {
				return nil, ErrNoScript
			}
			return []byte(src), nil
		}
		r, err := s.Run(context.Background(), &Message{Header: h, Body: mail.InlineBody(body)},
			&Env{From: "a@example.org", To: "b+c@example.net", Now: time.Unix(1e9, 0), Script: include, Spam: 50, Explain: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Actions) > small.Actions+1 {
			t.Fatalf("%d actions", len(r.Actions))
		}
		if r.Edited != nil {
			checkHeader(t, r.Edited.Header, h)
		}
	})
}

// checkHeader: a script adds fields, and nothing that a reader could take for something else.
func checkHeader(t *testing.T, edited, source mail.Header) {
	t.Helper()
	block := string(edited.Block())
	for _, f := range source.Fields {
		block = strings.Replace(block, strings.TrimSuffix(string(f.Raw()), "\r\n"), "", 1)
	}
	if strings.Contains(strings.ReplaceAll(block, "\r\n", ""), "\r") || strings.Contains(strings.ReplaceAll(block, "\r\n", ""), "\n") {
		t.Fatalf("a line end of its own kind in %q", block)
	}
}

// FuzzAddresses: lists of addresses are read in linear time, and never beyond their end.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"a@b", "\"x y\" <a@b>, g: c@d, (x) e@f;", "<@a,@b:c@d>", "a b c", "(((", "\"", "a@[1.2.3.4]", "a@b c@d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, a := range parseAddresses(s) {
			if strings.ContainsAny(a.full, "\x00") && !strings.Contains(s, "\x00") {
				t.Fatal("made up")
			}
			for p := partAll; p <= partDetail; p++ {
				p.of(a, "+")
			}
		}
	})
}
