package auth

import (
	"errors"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
)

// converse plays responses to a mechanism and returns the challenges, "done" or the error.
func converse(s sasl.Server, responses ...string) string {
	var out []string
	for _, r := range responses {
		var b []byte
		if r != "-" { // no initial response
			b = []byte(r)
		}
		challenge, done, err := s.Next(b)
		switch {
		case err != nil:
			return strings.Join(append(out, err.Error()), "|")
		case done:
			return strings.Join(append(out, "done"), "|")
		}
		out = append(out, string(challenge))
	}
	return strings.Join(out, "|")
}

func TestC03Mechanisms(t *testing.T) {
	const syntax = "501 5.5.2 Malformed authentication response"
	long := strings.Repeat("x", maxResponse)
	for _, c := range []struct {
		name      string
		make      func(Check) sasl.Server
		responses []string
		want      string
		said      string
	}{
		{"plain", NewPlain, []string{"\x00user\x00pass"}, "done", ",user,pass"},
		{"plain without initial response", NewPlain, []string{"-", "id\x00user\x00pass"}, "|done", "id,user,pass"},
		{"plain, too few parts", NewPlain, []string{"user\x00pass"}, syntax, ""},
		{"plain, too many parts", NewPlain, []string{"\x00user\x00pass\x00"}, syntax, ""},
		{"plain, empty", NewPlain, []string{""}, syntax, ""},
		{"plain, as long as possible", NewPlain, []string{"\x00user\x00" + long[:maxResponse-6]}, "done", ",user," + long[:maxResponse-6]},
		{"plain, too long", NewPlain, []string{"\x00user\x00" + long[:maxResponse-5]}, syntax, ""},
		{"plain, twice", NewPlain, []string{"x", "\x00user\x00pass"}, syntax, ""},
		{"plain, refused", NewPlain, []string{"\x00user\x00bad"}, "no", ",user,bad"},
		{"login", NewLogin, []string{"-", "user", "pass"}, "Username:|Password:|done", ",user,pass"},
		{"login with initial response", NewLogin, []string{"user", "pass"}, "Password:|done", ",user,pass"},
		{"login, empty", NewLogin, []string{"-", "", ""}, "Username:|Password:|done", ",,"},
		{"login, NUL", NewLogin, []string{"-", "us\x00er"}, "Username:|" + syntax, ""},
		{"login, too long", NewLogin, []string{"-", long + "x"}, "Username:|" + syntax, ""},
		{"login, refused", NewLogin, []string{"user", "bad"}, "Password:|no", ",user,bad"},
	} {
		said := ""
		s := c.make(func(identity, username, password string) error {
			said = identity + "," + username + "," + password
			if password == "bad" {
				return errors.New("no")
			}
			return nil
		})
		if got := converse(s, c.responses...); got != c.want || said != c.said {
			t.Errorf("%s: %q said %.50q, want %q said %.50q", c.name, got, said, c.want, c.said)
		}
		said = ""
		if _, done, err := s.Next([]byte("\x00user\x00pass")); done || err == nil || said != "" {
			t.Errorf("%s: goes on after its end", c.name)
		}
	}
}

func FuzzMechanisms(f *testing.F) {
	f.Add([]byte("\x00user\x00pass"), []byte("x"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for _, make := range []func(Check) sasl.Server{NewPlain, NewLogin} {
			checks := 0
			s := make(func(_, user, password string) error {
				checks++
				if strings.Contains(user+password, "\x00") {
					t.Error("a NUL comes through")
				}
				return nil
			})
			for _, r := range [][]byte{a, b, b, b} {
				s.Next(r)
			}
			if checks > 1 {
				t.Error("two passwords in one exchange")
			}
		}
	})
}
