package queue

import "testing"

func TestClassNames(t *testing.T) {
	for c := range Class(Classes) {
		if got, err := ParseClass(c.String()); got != c || err != nil {
			t.Errorf("%s: %s, %v", c, got, err)
		}
		if c.IsCopy() != (c == Copy || c == Journal) {
			t.Errorf("%s is a copy: %t", c, c.IsCopy())
		}
	}
	for _, name := range []string{"", "Mail", "unknown"} {
		if _, err := ParseClass(name); err == nil {
			t.Errorf("%q is a class", name)
		}
	}
	if s := Class(Classes).String(); s != "unknown" {
		t.Errorf("%q", s)
	}
}
