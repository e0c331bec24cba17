package sieve

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func header(names string) mail.Header {
	var b strings.Builder
	for i, n := range strings.Fields(names) {
		if strings.HasSuffix(n, "!") {
			b.WriteString(n[:1] + ": " + n + "\r\n\tfolded\r\n")
		} else {
			b.WriteString(n[:1] + ": " + n + "\r\n")
		}
		_ = i
	}
	return mail.NewHeader([]byte(b.String() + "\r\n"))
}

func TestHeaderEdits(t *testing.T) {
	for _, tt := range []struct {
		old, now string
		edits    int
	}{
		{"a b c", "a b c", 0}, {"a b c", "x a b c", 1}, {"a b c", "a b c x", 1}, {"a b c", "x a c y", 3}, {"a1 a2 a3 a4", "a2 a4", 2}, {"a1 a2 a3", "a3 a3", 3},
		{"a b", "", 2}, {"a b", "b a b", 3}, {"a! b", "x! b", 2}, {"a b c d", "e d c b a f", 9}, {"a a a", "a", 2},
	} {
		old, now := header(tt.old), header(tt.now)
		edits := headerEdits(old, now)
		if err := sdktest.Apply(&sdk.Verdict{Edits: edits}, &old); err != nil {
			t.Error(err)
		}
		if string(old.Block()) != string(now.Block()) || len(edits) > tt.edits {
			t.Errorf("%q to %q: %d edits make\n%s", tt.old, tt.now, len(edits), old.Block())
		}
	}
}
