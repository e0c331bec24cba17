package wire

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
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

// A copy with a content of its own has a header, its body in the draft, and needs both rights.
func TestCheckCopyOwn(t *testing.T) {
	const header = "Subject: x\r\n\r\n"
	for _, tt := range []struct {
		header, draft string
		may           sdk.Right
		ok            bool
	}{
		{header, "/d/1", sdk.MayCopy | sdk.MayReplaceBody, true},
		{"A: b\r\n\tc\r\nD: e\r\n\r\n", "/d/1", allRights, true},
		{"\r\n", "/d/1", allRights, true},
		{header, "/d/1", sdk.MayCopy, false},
		{header, "/d/1", sdk.MayReplaceBody, false},
		{header, "/d/2", allRights, false},
		{header, "", allRights, false},
		{"", "/d/1", allRights, false},
		{"Subject: x\r\n", "/d/1", allRights, false},
		{"no field\r\n\r\n", "/d/1", allRights, false},
		{header + "body\r\n", "/d/1", allRights, false},
		{"Subject: x\n\r\n", "/d/1", allRights, false},
		{"Subject: x\ry\r\n\r\n", "/d/1", allRights, false},
		{"Subject: \x00\r\n\r\n", "/d/1", allRights, false},
		{"Subject: " + strings.Repeat("x", maxField) + "\r\n\r\n", "/d/1", allRights, false},
	} {
		v := edits(sdk.Edit{Kind: sdk.Copy, Path: mail.MustPath("a@x.test"), Value: tt.header, BodyDraft: tt.draft})
		if err := CheckDraft(v, sdk.Manifest{May: tt.may}, env(1), "/d/1"); (err == nil) != tt.ok {
			t.Errorf("%.50q, %s: %v", tt.header, tt.draft, err)
		}
	}
}
