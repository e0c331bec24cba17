package mime

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

func namesOf(t testing.TB, header string) ([]string, Defect) {
	t.Helper()
	p := &Part{Header: mail.NewHeader([]byte(header + "\r\n\r\n"))}
	return p.Names()
}

// Each reader's name is among the names (M-06).
func TestM06Names(t *testing.T) {
	for name, tt := range map[string]struct {
		header string
		want   []string
	}{
		"plain":              {`Content-Disposition: attachment; filename=a.exe`, []string{"a.exe"}},
		"quoted":             {`Content-Disposition: attachment; filename="a b;.exe"`, []string{"a b;.exe", "a b"}},
		"escaped":            {`Content-Disposition: attachment; filename="a\".exe"`, []string{`a".exe`}},
		"DOS path":           {`Content-Disposition: attachment; filename="C:\dir\a.exe"`, []string{`C:dira.exe`, `C:\dir\a.exe`}},
		"not closed":         {`Content-Disposition: attachment; filename="a.exe`, []string{"a.exe"}},
		"goes on":            {`Content-Disposition: attachment; filename="a.txt".exe`, []string{"a.txt", "a.txt.exe"}},
		"spaces":             {`Content-Disposition: attachment; filename=a b.exe`, []string{"a b.exe", "a"}},
		"comment":            {`Content-Disposition: attachment; filename=a.exe(.txt)`, []string{"a.exe(.txt)", "a.exe"}},
		"case":               {`content-disposition: ATTACHMENT; FileName=a.exe`, []string{"a.exe"}},
		"type only":          {`Content-Type: application/x; name="a.exe"`, []string{"a.exe"}},
		"both":               {"Content-Type: application/x; name=a.txt\r\nContent-Disposition: attachment; filename=b.exe", []string{"b.exe", "a.txt"}},
		"field twice":        {"Content-Disposition: attachment; filename=a.txt\r\nContent-Disposition: attachment; filename=b.exe", []string{"a.txt", "b.exe"}},
		"parameter twice":    {"Content-Disposition: attachment; filename=a.txt; filename=b.exe", []string{"a.txt", "b.exe"}},
		"RFC 2231":           {`Content-Disposition: attachment; filename*=utf-8'en'%E2%82%AC.exe`, []string{"€.exe"}},
		"RFC 2231, Latin 1":  {`Content-Disposition: attachment; filename*=iso-8859-1''%E4.exe`, []string{"ä.exe"}},
		"RFC 2231, quoted":   {`Content-Disposition: attachment; filename*="utf-8''a%2eexe"`, []string{"a.exe"}},
		"no charset":         {`Content-Disposition: attachment; filename*=a%2eexe`, []string{"a.exe"}},
		"in pieces":          {`Content-Disposition: attachment; filename*1=".exe"; filename*0="a"`, []string{"a.exe", ".exea"}},
		"encoded pieces":     {`Content-Disposition: attachment; filename*0*=utf-8''%C3; filename*1*=%A4.e; filename*2=xe`, []string{"ä.exe"}},
		"a gap":              {`Content-Disposition: attachment; filename*0="a.txt"; filename*2=".exe"`, []string{"a.txt", "a.txt.exe"}},
		"piece twice":        {`Content-Disposition: attachment; filename*0="a"; filename*0="b"; filename*1=".exe"`, []string{"a", "a.exe", "ab.exe"}},
		"pieces and plain":   {`Content-Disposition: attachment; filename=a.txt; filename*0="b"; filename*1=".exe"`, []string{"a.txt", "b.exe"}},
		"percent in a piece": {`Content-Disposition: attachment; filename*0="a%2e"; filename*1="exe"`, []string{"a%2eexe", "a.exe"}},
		"encoded-word":       {`Content-Disposition: attachment; filename="=?utf-8?Q?a=2Eexe?="`, []string{"a.exe", "=?utf-8?Q?a=2Eexe?="}},
		"encoded-words":      {`Content-Disposition: attachment; filename="=?utf-8?B?YS5l?= =?utf-8?B?eGU=?="`, []string{"a.exe"}},
		"half a character":   {`Content-Disposition: attachment; filename="=?utf-8?Q?=C3?= =?UTF-8?Q?=A4.exe?="`, []string{"ä.exe"}},
		"word not quoted":    {`Content-Disposition: attachment; filename==?utf-8?Q?a=2Eexe?=`, []string{"a.exe"}},
		"word in the middle": {`Content-Disposition: attachment; filename="a=?utf-8?Q?=2E?=exe"`, []string{"a.exe"}},
		"percent":            {`Content-Disposition: attachment; filename="a%2Eexe"`, []string{"a%2Eexe", "a.exe"}},
		"NUL":                {`Content-Disposition: attachment; filename*=utf-8''a.exe%00.txt`, []string{"a.exe\x00.txt", "a.exe"}},
		"raw UTF-8":          {"Content-Disposition: attachment; filename=\"\xc3\xa4.exe\"", []string{"ä.exe"}},
		"raw Latin 1":        {"Content-Disposition: attachment; filename=\"\xe4.exe\"", []string{"ä.exe"}},
		"folded":             {"Content-Disposition: attachment;\r\n filename=\"a\r\n .exe\"", []string{"a .exe"}},
		"ISO-2022-JP":        {"Content-Disposition: attachment; filename=\"=?ISO-2022-JP?B?GyRCRnxLXBsoQi5leGU=?=\"", []string{"日本.exe"}},
	} {
		got, d := namesOf(t, tt.header)
		for _, w := range tt.want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: %q is not among %q", name, w, got)
			}
		}
		if len(got) == 0 || got[0] != tt.want[0] && name != "pieces and plain" {
			t.Errorf("%s: the first is not %q: %q", name, tt.want[0], got)
		}
		if d != 0 {
			t.Errorf("%s: %s", name, d)
		}
	}
	if got, d := namesOf(t, `Content-Disposition: attachment; filename="=?utf-7?Q?a+AC4-exe?="`); d != OddName {
		t.Errorf("unknown charset: %q, %v", got, d)
	}
	if got, _ := namesOf(t, "Content-Type: text/plain"); got != nil {
		t.Errorf("names from nowhere: %q", got)
	}
}

// What is too much is said (M-05).
func TestM05Limits(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		b.WriteString("Content-Disposition: attachment")
		for i := range n {
			fmt.Fprintf(&b, ";\r\n filename*%d*=a", i)
		}
		return b.String()
	}
	for n, want := range map[int]Defect{maxParams - 1: OddName, maxParams: OddName, maxParams + 1: OddName, maxName: 0, maxName + 1: OddName} {
		if _, d := namesOf(t, many(n)); d != want {
			t.Errorf("%d pieces: %v, want %v", n, d, want)
		}
	}
	distinct := func(n int) string {
		var b strings.Builder
		b.WriteString("Content-Disposition: attachment")
		for i := range n {
			fmt.Fprintf(&b, "; filename=a%d", i)
		}
		return b.String()
	}
	for n, want := range map[int]Defect{maxNames - 1: 0, maxNames: 0, maxNames + 1: OddName} {
		if got, d := namesOf(t, distinct(n)); d != want || len(got) != min(n, maxNames) {
			t.Errorf("%d names: %d, %v, want %v", n, len(got), d, want)
		}
	}
}

func TestDecodeWords(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                                 "plain",
		"=?utf-8?q?a_b?=":                       "a b",
		"x =?utf-8?q?a?= y":                     "x a y",
		"=?utf-8?q?a?=\r\n =?utf-8?q?b?=":       "ab",
		"=?utf-8?q?a?= =?iso-8859-1?q?=E4?=":    "aä",
		"=?utf-8*en?q?a?=":                      "a",
		"=?utf-8?q?a b?=":                       "a b",
		"=?utf-8?x?a?=":                         "=?utf-8?x?a?=",
		"=?utf-8?q?a":                           "=?utf-8?q?a",
		"=?utf-8?q?a=?utf-8?q?b?=":              "=?utf-8?q?ab",
		"=?=?=?utf-8?q?b?=":                     "=?=?b",
		"=?utf-8?b?****?=":                      "",
		"=?utf-8?q?=zz?=":                       "=zz",
		"=?utf-8?q?b?==?utf-8?q?c?=":            "bc",
		"=?" + strings.Repeat("x", 100) + "?q?": "=?" + strings.Repeat("x", 100) + "?q?",
	} {
		if got, unknown := DecodeWords(in); got != want || unknown {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add("Content-Disposition: attachment; filename*0*=utf-8''a%20; filename*1=\"b=?utf-8?q?c?=\"; name=x(y)\\")
	f.Fuzz(func(t *testing.T, s string) {
		names, _ := namesOf(t, s)
		for _, n := range names {
			if n == "" || len(n) > maxName || !isUTF8(n) {
				t.Errorf("%q", n)
			}
		}
		DecodeWords(s)
	})
}

func isUTF8(s string) bool { return strings.ToValidUTF8(s, "") == s }
