package pluginhost

import (
	"testing"

	"github.com/postern-mail/postern/sdk"
)

// The body of a copy may have a message in it, that of the message itself not.
func TestDraftRoom(t *testing.T) {
	own, replaced, plain := sdk.Edit{Kind: sdk.Copy, BodyDraft: "d"}, sdk.Edit{Kind: sdk.BodyReplace, BodyDraft: "d"}, sdk.Edit{Kind: sdk.Copy}
	for i, tt := range []struct {
		edits []sdk.Edit
		room  int64
		yes   bool
	}{
		{nil, 0, false},
		{[]sdk.Edit{plain}, 0, false},
		{[]sdk.Edit{plain, replaced}, 100, true},
		{[]sdk.Edit{own, plain}, 100 + wrapping, true},
		{[]sdk.Edit{own, replaced}, 100, true},
	} {
		if room, yes := replaces(&sdk.Verdict{Edits: tt.edits}, 100); room != tt.room || yes != tt.yes {
			t.Errorf("%d: %d, %v", i, room, yes)
		}
	}
}
