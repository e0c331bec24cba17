package sdk_test

import (
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestAllowed(t *testing.T) {
	for note, want := range map[string][3]bool{"": {}, "0": {true}, "1": {1: true}, "0,2": {true, false, true}, "10,21": {}, "x,1": {1: true}, ",": {}} {
		m := &mail.Message{Notes: map[string]string{sdk.NoteAllowed: note}}
		for i := range want {
			if got := sdk.Allowed(m, i); got != want[i] {
				t.Errorf("%q: recipient %d: %v", note, i, got)
			}
		}
	}
	if sdk.Allowed(&mail.Message{}, 0) {
		t.Error("allowed without a note")
	}
}
