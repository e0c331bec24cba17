package mail

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestStatusClass: the class of the enhanced code is always that of the reply code.
func TestStatusClass(t *testing.T) {
	for _, s := range []Status{
		OK(250, 0, 0, ""), OK(550, 1, 1, ""), Temporary(451, 3, 0, ""), Temporary(550, 3, 0, ""), Temporary(250, 3, 0, ""), Temporary(999, 3, 0, ""),
		Permanent(550, 1, 1, ""), Permanent(451, 1, 1, ""), Permanent(0, -1, 5000, ""), Permanent(599, 1, 1, ""),
	} {
		if s.Code/100 != s.Enhanced[0] || s.Code%100 > 59 {
			t.Errorf("%v", s)
		}
	}
	if s := Permanent(451, 7, 1, "no"); !s.Permanent() || s.Error() != "554 5.7.1 no" {
		t.Errorf("%v", s)
	}
}

func TestStatusTextIsOneSafeLine(t *testing.T) {
	s := Permanent(550, 1, 1, "a\r\n250 ok\x1b[31m\u202e\xff"+strings.Repeat("ü", 1000))
	if strings.ContainsAny(s.Text, "\r\n\x1b\u202e") || !utf8.ValidString(s.Text) || len(s.Text) > 400 || !strings.HasPrefix(s.Text, "a  250 ok?[31m") {
		t.Errorf("%q", s.Text)
	}
}

// TestStatusOf: permanent has to be said on purpose; an unknown error says nothing outside.
func TestStatusOf(t *testing.T) {
	no := Permanent(550, 1, 1, "no")
	for _, c := range []struct {
		err  error
		want Status
	}{
		{nil, OK(250, 0, 0, "Ok")},
		{no, no},
		{fmt.Errorf("deliver: %w", no), no},
		{errors.New("open /secret/path: no space"), Temporary(451, 3, 0, "Local error, try again later")},
		{fmt.Errorf("odd: %w", Status{}), Temporary(451, 3, 0, "Local error, try again later")},
	} {
		if got := StatusOf(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
