package wire

import (
	"testing"

	"github.com/postern-mail/postern/sdk"
)

// A new body has to be in the draft of this call, and needs its right.
func TestCheckDraft(t *testing.T) {
	v := func(draft string) *sdk.Verdict { return edits(sdk.Edit{Kind: sdk.BodyReplace, BodyDraft: draft}) }
	for _, tt := range []struct {
		named, made string
		may         sdk.Right
		ok          bool
	}{
		{"/d/1", "/d/1", sdk.MayReplaceBody, true},
		{"/d/1", "/d/1", allRights &^ sdk.MayReplaceBody, false},
		{"/d/2", "/d/1", allRights, false},
		{"/d/../d/1", "/d/1", allRights, false},
		{"", "/d/1", allRights, false},
		{"/d/1", "", allRights, false},
		{"", "", allRights, false},
	} {
		if err := CheckDraft(v(tt.named), sdk.Manifest{May: tt.may}, env(1), tt.made); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
