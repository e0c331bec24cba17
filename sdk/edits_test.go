package sdk_test

import (
	"reflect"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestEdits(t *testing.T) {
	p := mail.MustPath("a@example.org")
	got := sdk.Continue().Only(1).InsertHeader(2, "A", "b").ChangeHeader(1, "C", "").RemoveHeader(-1, "D").Only(0, 3).
		AddRecipient(p).RemoveRecipient(p).Only().SetReversePath(mail.Path{}).Edits
	want := []sdk.Edit{
		{Kind: sdk.HeaderInsert, Index: 2, Name: "A", Value: "b"},
		{Kind: sdk.HeaderChange, Index: 1, Name: "C"},
		{Kind: sdk.HeaderRemove, Index: -1, Name: "D", Recipients: []int{0, 3}},
		{Kind: sdk.RecipientAdd, Path: p},
		{Kind: sdk.RecipientRemove, Path: p, Recipients: []int{}}, // nobody, which is not everybody
		{Kind: sdk.ReversePath},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}
