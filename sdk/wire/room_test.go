package wire

import (
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// A mailbox may say that it has room, or why not; everything else breaks the contract.
func TestRoomy(t *testing.T) {
	r := RoomRequest(mail.MustPath("a@example.org"), 4711)
	if r.Size != 4711 || r.Recipient.Local != "a" {
		t.Errorf("%v", r)
	}
	for _, c := range []struct {
		status *proto.Status
		code   int
		ok     bool
	}{
		{nil, 250, true},
		{Status(mail.Temporary(452, 2, 2, "full")), 452, true},
		{Status(mail.Permanent(552, 2, 3, "too large")), 552, true},
		{Status(mail.OK(250, 0, 0, "ok")), 0, false},
		{&proto.Status{Code: 452, Text: "two\r\nlines"}, 0, false},
		{&proto.Status{Code: 7}, 0, false},
	} {
		err, ok := Roomy(&proto.RoomResponse{Status: c.status})
		if ok != c.ok || ok && mail.StatusOf(err).Code != c.code {
			t.Errorf("%v: %v, %v", c.status, err, ok)
		}
	}
}

// Only a mailbox has room.
func TestDescribeRoom(t *testing.T) {
	for name, want := range map[string]bool{proto.InterfaceMailbox: true, proto.InterfaceFilter: false} {
		d, err := Describe(&proto.Manifest{Name: "x", Version: "1", Interfaces: []string{name}, Room: true})
		if err != nil || d.Room != want {
			t.Errorf("%s: %v, %v", name, d.Room, err)
		}
	}
}
