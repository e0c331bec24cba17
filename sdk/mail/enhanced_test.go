package mail

import "testing"

func TestCutEnhanced(t *testing.T) {
	for text, want := range map[string]struct {
		code [3]int
		rest string
	}{
		"5.7.1 no":        {[3]int{5, 7, 1}, "no"},
		"2.0.0":           {[3]int{2, 0, 0}, ""},
		"4.999.999  a b ": {[3]int{4, 999, 999}, " a b "},
		"5.7.1 ":          {[3]int{5, 7, 1}, ""},
		"2.01.5 Ok":       {[3]int{2, 1, 5}, "Ok"},
		"":                {}, " ": {}, "5": {}, "5.7": {}, "5.7. x": {}, "5.7.1x": {}, "5.7.1.2 x": {}, "5.7.1000 x": {}, "3.7.1 x": {}, "005.7.1 x": {}, "55.7.1 x": {}, "5..1 x": {}, ".7.1 x": {}, "-5.7.1 x": {}, "+5.7.1": {},
	} {
		code, rest, ok := CutEnhanced(text)
		if want.code == [3]int{} {
			want.rest = text
		}
		if code != want.code || rest != want.rest || ok != (want.code != [3]int{}) {
			t.Errorf("%q: %v %q %v", text, code, rest, ok)
		}
	}
}
