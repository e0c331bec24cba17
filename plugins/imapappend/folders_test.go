package imapappend

import (
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/sdktest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

func listed(t *testing.T, p *Plugin) (*sdk.FolderList, string) {
	t.Helper()
	l, err := sdktest.Folders(t, p, ann)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range l.Folders {
		out = append(out, strings.Join(append([]string{f.Name}, f.Uses...), " "))
	}
	slices.Sort(out)
	return l, strings.Join(out, ", ")
}

// The server's folders, by the names under which mail is filed into them, on the connection that
// deliveries use; with what the server knows of their uses.
func TestFolderList(t *testing.T) {
	d := peertest.StartDovecot(t, peertest.DovecotOptions{More: `namespace inbox {
  inbox = yes
  prefix = INBOX.
  separator = .
  mailbox Old {
    auto = create
    special_use = \Archive
  }
  mailbox Spam {
    special_use = \Junk
  }
}
`})
	p := configured(t, d, "")
	if err := p.Deliver(t.Context(), delivery("one", ann, "x")); err != nil {
		t.Fatal(err)
	}
	if _, got := listed(t, p); got != `Old \Archive` {
		t.Errorf("at first: %s", got)
	}
	c := d.Login(t, ann.Fold().String())
	for _, name := range []string{"INBOX.Work", "INBOX.Lists.Go", "INBOX.Übung & Co", "INBOX.Spam", "INBOX.a/b"} {
		if err := c.Create(name, nil).Wait(); err != nil && name != "INBOX.a/b" {
			t.Fatal(err)
		}
	}
	l, got := listed(t, p)
	if got != `Lists/Go, Old \Archive, Spam \Junk, Work, Übung & Co` {
		t.Errorf("folders: %s", got)
	}
	for name, there := range map[string]bool{"Work": true, "INBOX.Work": true, "INBOX/Work": true, "Lists.Go": true, "Lists/Go": true, "Lists": false, "work": false, "": false, "INBOX": false} {
		if _, ok := l.Find(name); ok != there {
			t.Errorf("%q: %v", name, ok)
		}
		if !there || strings.HasPrefix(name, "INBOX") { // the rest: a delivery goes where the list says
			continue
		}
		del := delivery("to "+name, ann, "x")
		del.Folder = name
		if err := p.Deliver(t.Context(), del); err != nil {
			t.Fatal(err)
		}
	}
	for folder, want := range map[string]uint32{"INBOX.Work": 1, "INBOX.Lists.Go": 2, "INBOX.Übung & Co": 0} {
		st, err := c.Status(folder, &imap.StatusOptions{NumMessages: true}).Wait()
		if err != nil || *st.NumMessages != want {
			t.Errorf("%s: %v, %v", folder, st, err)
		}
	}
	if n := len(p.pool.idle); n != 1 {
		t.Errorf("%d connections are kept", n)
	}
	d.Stop()
	if l, err := p.Folders(t.Context(), ann); err == nil {
		t.Errorf("of a server that is gone: %v", l)
	}
}
