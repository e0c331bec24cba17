package engine

import (
	"strings"
	"testing"
)

func TestRegexOfPOSIX(t *testing.T) {
	for _, tt := range []struct {
		pattern, fits, not string
	}{
		{`^[\]$`, `\`, "x"},
		{`^[\.]+$`, `\.`, "x"},
		{`^[]x]+$`, "]x", "y"},
		{`^[^]x]+$`, "y", "]"},
		{`^[\]]$`, `\]`, "]"},
		{`^[\w]$`, "w", `\`},
		{`^[\\d]$`, "d", "1"},
		{`^[[:digit:]a]$`, "7", "b"},
		{`^[[=a=][.-.]]$`, "-", "="},
		{`^[[]$`, "[", "x"},
		{`^a{,2}$`, "", "aaa"},
		{`^a{2}{2}$`, "aaaa", "aa"},
		{`^(ab)**$`, "abab", "aba"},
		{`^a+?$`, "", "b"},
		{`^a)$`, "a)", "a"},
		{`^\)\($`, ")(", "x"},
		{`^(a|(b))c$`, "bc", "c"},
		{`^a{b$`, "a{b", "ab"},
	} {
		re, err := compileRegex(tt.pattern, octet)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		if !re.MatchString(tt.fits) || re.MatchString(tt.not) {
			t.Errorf("%s is %s", tt.pattern, re)
		}
	}
	for _, pattern := range []string{"(a", "[a", "[", "a{2,1}", "*a", "[[:none:]]", "[[.ab", `a\`, "a" + strings.Repeat("*", 1000), strings.Repeat("(", 4000)} {
		if re, err := compileRegex(pattern, octet); err == nil {
			t.Errorf("%.20s is %s", pattern, re)
		}
	}
}
