package ldap

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	goldap "github.com/go-ldap/ldap/v3"
)

// A value of any length in the directory does not fill the log.
func TestLongValueInLog(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	e := &expansion{p: New(), seen: make(map[string]bool)}
	if err := e.add(goldap.NewEntry("cn=x", nil), "no address "+strings.Repeat("x", 1<<20)); err != nil || len(e.targets) != 0 {
		t.Errorf("%v, %v", e.targets, err)
	}
	if s := out.String(); !strings.Contains(s, "value is no address") || len(s) > 1000 {
		t.Errorf("%d bytes: %.300s", len(s), s)
	}
}
