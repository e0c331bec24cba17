package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// parseMessage makes a Message of text with LF line ends.
func parseMessage(s string) *Message {
	h, body := mail.SplitMessage([]byte(strings.ReplaceAll(s, "\n", "\r\n")))
	return &Message{Header: h, Body: mail.InlineBody(body)}
}

const sample = `From: "Alice, of Wonderland" <alice@example.org>
To: bob+lists@example.net, carol@example.com
Cc: friends: dave@example.org, (a comment) eve@example.org;
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= and more
X-Count: 42

Hello
`

// outcome runs a script over the sample and renders what it wants done.
func outcome(t *testing.T, script string) string {
	t.Helper()
	s, err := Compile([]byte(script), Options{})
	if err != nil {
		return "error: " + err.Error()
	}
	r, err := s.Run(context.Background(), parseMessage(sample), &Env{From: "alice@example.org", To: "bob+lists@example.net", Now: time.Unix(1e9, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if r.Fault != nil {
		return "fault: " + r.Fault.Error()
	}
	return render(r)
}

func render(r *Result) string {
	var list []string
	for _, a := range r.Actions {
		s := a.Kind.String()
		if a.Implicit {
			s = "implicit " + s
		}
		s += " " + a.Mailbox + a.Address
		if len(a.Flags) > 0 {
			s += fmt.Sprint(a.Flags)
		}
		if a.Copy {
			s += " copy"
		}
		list = append(list, strings.TrimSpace(s))
	}
	return strings.Join(list, "; ")
}

func TestScripts(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{``, "implicit keep"},
		{`discard;`, ""},
		{`keep; keep;`, "keep"},
		{"require \"fileinto\";\r\nfileinto \"a\"; fileinto \"b\"; fileinto \"a\";", "fileinto a; fileinto b"},
		{`redirect "x@example.org"; redirect "x@EXAMPLE.org";`, "redirect x@example.org"},
		{`require ["copy","fileinto"]; fileinto :copy "a";`, "fileinto a copy; implicit keep"},
		{`if header :is "subject" "grüße and more" { discard; }`, ""},
		{`if header :contains "X-COUNT" "4" { discard; } else { redirect "a@b.example"; }`, ""},
		{`if address :localpart "from" "ALICE" { discard; }`, ""},
		{`if address :is "cc" "eve@example.org" { discard; }`, ""},
		{`require "subaddress"; if address :detail "to" "lists" { discard; }`, ""},
		{`require "envelope"; if envelope :domain "from" "example.org" { discard; }`, ""},
		{`if allof (true, not false, anyof (false, exists ["from", "to"])) { discard; }`, ""},
		{`if size :over 10 { if size :under 1K { discard; } }`, ""},
		{`require ["variables","fileinto"]; if header :matches "from" "*<*@*>" { fileinto "${3}/${2}"; }`, "fileinto example.org/alice"},
		{`require ["variables","fileinto"]; set :upperfirst :lower "a" "HELLO"; set :length "b" "${a}"; fileinto "${a}${b}${c}";`, "fileinto Hello5"},
		{`require ["imap4flags","fileinto"]; addflag ["a", "\\Seen A"]; keep; fileinto :flags "x" "f";`, `keep [a \Seen]; fileinto f[x]`},
		{`require ["relational","comparator-i;ascii-numeric"]; if header :value "gt" :comparator "i;ascii-numeric" "x-count" "9" { discard; }`, ""},
		{`require "relational"; if address :count "eq" "to" "2" { discard; }`, ""},
		{`require "encoded-character"; if header :is "x-count" "${hex: 34 32}" { discard; }`, ""},
		{`if true { stop; } discard;`, "implicit keep"},
		{`fileinto "x";`, "error: line 1: command 'fileinto' needs the extension 'fileinto': add it to 'require'"},
		{`if true { require "copy"; }`, "error: line 1: 'require' has to stand before all other commands"},
		{"\r\nkeep", "error: line 2: expected ';' or a block after command 'keep', found the end of the script"},
		{`else { keep; }`, "error: line 1: 'else' has to follow an 'if' or 'elsif'"},
		{`redirect "a@b.c"; redirect "b@b.c"; redirect "c@b.c"; redirect "d@b.c"; redirect "e@b.c";`, "fault: line 1: more than 4 redirects"},
		{`redirect text: # a comment` + "\r\n..x@example.org\r\n.\r\n;", "error: line 1: '.x@example.org??' is no address to redirect to"},
	} {
		if got := outcome(t, c.script); got != c.want {
			t.Errorf("%s\n got %q\nwant %q", c.script, got, c.want)
		}
	}
}

// TestRoundTrip: what is printed parses into the same.
func TestRoundTrip(t *testing.T) {
	src := "if anyof (not header :is [\"a\", \"b\\\"\"] \"c\", true) { keep; stop; } elsif size :over 2K { } else { discard; }"
	tree, err := Parse([]byte(src), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	once := tree.Print()
	again, err := Parse([]byte(once), Limits{})
	if err != nil {
		t.Fatalf("%v in\n%s", err, once)
	}
	if twice := again.Print(); twice != once {
		t.Errorf("%s\nbecame\n%s", once, twice)
	}
}
