package sieve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func TestFilter(t *testing.T) {
	dir := t.TempDir()
	for i, tt := range []struct {
		name, script string
		action       sdk.Action
		edits        int
		fault        string
	}{
		{"nothing", "#", sdk.ActionContinue, 0, ""},
		{"discard", "discard;", sdk.ActionDiscard, 0, ""},
		{"redirect", `redirect "x@example.com";`, sdk.ActionContinue, 3, ""},
		{"copy", `require "copy"; redirect :copy "x@example.com";`, sdk.ActionContinue, 1, ""},
		{"header", `require "editheader"; addheader "X" "y"; deleteheader "Subject";`, sdk.ActionContinue, 2, ""},
		{"body", `require "replace"; replace "new";`, sdk.ActionContinue, 3, ""},
		{"bare CR", `require ["replace", "encoded-character"]; replace "a${hex:0D}b";`, sdk.ActionContinue, 0, "bare CR"},
		{"hold", `require "fileinto"; fileinto "spam";`, sdk.ActionQuarantine, 0, ""},
		{"hold a copy", `require ["fileinto", "copy"]; fileinto :copy "spam";`, sdk.ActionContinue, 0, "not possible"},
		{"hold and keep", `require "fileinto"; fileinto "spam"; keep;`, sdk.ActionContinue, 0, "kept and refused or held"},
		{"note", `require "environment"; if environment "VND.postern.note.mailauth/dmarc" "fail" { discard; }`, sdk.ActionDiscard, 0, ""},
		{"score", `require ["environment", "relational", "comparator-i;ascii-numeric"]; if environment :value "gt" :comparator "i;ascii-numeric" "vnd.postern.score.spam/score" "7" { discard; }`,
			sdk.ActionDiscard, 0, ""},
		{"fault", `redirect "a@example.com"; redirect "b@example.com"; redirect "c@example.com"; redirect "d@example.com"; redirect "e@example.com";`, sdk.ActionContinue, 0, "line 1"},
	} {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(tt.script), 0o600); err != nil {
			t.Fatal(err)
		}
		p, _ := configured(t, fmt.Sprintf("gateway = %q\n", path), "")
		m := message(hello)
		m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: mail.MustPath("carol@example.org")})
		m.Scores, m.Notes = map[string]float64{"spam/score": 8.5}, map[string]string{"mailauth/dmarc": "fail"}
		v, err := sdktest.Filter(t, p, Manifest(), m)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if v.Action != tt.action || len(v.Edits) != tt.edits || (tt.fault == "") != (v.Notes["fault"] == "") || !strings.Contains(v.Notes["fault"], tt.fault) {
			t.Errorf("%s: %+v", tt.name, v)
		}
		if body, ok := sdktest.Body(t, v); tt.name == "body" && (!ok || string(body) != "new") {
			t.Errorf("body %q", body)
		}
	}
	if Filters([]byte("gateway = \"x\"")) != true || Filters(nil) || Filters([]byte("gateway = 1")) {
		t.Error("it is asked for nothing, or not asked")
	}
}
