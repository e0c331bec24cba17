package mailbox

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

type listing struct {
	asked    int
	deadline time.Time
	err      error
}

func (l *listing) Folders(ctx context.Context, _ mail.Path) (*sdk.FolderList, error) {
	l.asked++
	l.deadline, _ = ctx.Deadline()
	return &sdk.FolderList{Folders: []sdk.Folder{{Name: "Work"}}}, l.err
}

// The mailbox of the recipient is asked, by a deadline; not by itself; what is no mailbox, or is not
// there, is one that does not tell.
func TestFolders(t *testing.T) {
	box := &listing{}
	f := &Folders{
		Mailbox: func(to mail.Path) (string, bool) { return to.Local, to.Local != "elsewhere" },
		Backend: func(name string) (Lister, bool) { return box, name == "box" },
	}
	for _, tt := range []struct {
		asker, to string
		list, err bool
	}{
		{"sieve", "box@example.org", true, false},
		{"sieve", "elsewhere@example.org", false, false},
		{"sieve", "gone@example.org", false, false},
		{"box", "box@example.org", false, true},
	} {
		l, err := f.Folders(t.Context(), tt.asker, mail.MustPath(tt.to))
		if (l != nil) != tt.list || (err != nil) != tt.err || err != nil && !mail.StatusOf(err).Permanent() {
			t.Errorf("%+v: %v, %v", tt, l, err)
		}
	}
	if box.asked != 1 || box.deadline.IsZero() || time.Until(box.deadline) > foldersTime {
		t.Errorf("asked %d times, until %v", box.asked, box.deadline)
	}
	box.err = errors.New("down")
	if _, err := f.Folders(t.Context(), "sieve", mail.MustPath("box@example.org")); !errors.Is(err, box.err) {
		t.Error(err)
	}
}
