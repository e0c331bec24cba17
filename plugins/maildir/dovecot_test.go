package maildir

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// nobodys is a disk on which all belongs to the user that Dovecot is for mail: as if the plugin
// ran under that user.
type nobodys struct {
	osDisk
	n *atomic.Int64
}

func (d nobodys) Mkdir(path string) error {
	if err := d.osDisk.Mkdir(path); err != nil {
		return err
	}
	return os.Chown(path, peertest.DovecotUID, peertest.DovecotGID)
}

// Create has the file belong to nobody from its first moment.
func (d nobodys) Create(path string) (file, error) {
	tmp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".nobody-%d", d.n.Add(1)))
	f, err := d.osDisk.Create(tmp)
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp)
	if err := errors.Join(os.Chown(tmp, peertest.DovecotUID, peertest.DovecotGID), os.Link(tmp, path)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// beside is a plugin that stores in the Maildirs of a Dovecot.
func beside(t testing.TB, d *peertest.Dovecot, settings string) *Plugin {
	t.Helper()
	p := New()
	c := sdk.Config{DataDir: d.Mail, Hostname: "mx.example.org", Settings: []byte("path = '" + d.Mail + "/{local}'\n" + settings)}
	if err := p.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	p.disk = nobodys{n: new(atomic.Int64)}
	return p
}

func to(local string) mail.Path { return mail.MustPath(local + "@example.org") }

// seen is a mailbox as Dovecot shows it: subject -> flags, and the texts.
func seen(t testing.TB, c *imapclient.Client, folder string) (flags map[string]string, texts map[string]string) {
	t.Helper()
	flags, texts = make(map[string]string), make(map[string]string)
	data, err := c.Select(folder, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		t.Fatalf("%s: %v", folder, err)
	}
	if data.NumMessages == 0 {
		return flags, texts
	}
	var all imap.SeqSet
	all.AddRange(1, 0)
	section := &imap.FetchItemBodySection{Peek: true}
	msgs, err := c.Fetch(all, &imap.FetchOptions{Flags: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		text := m.FindBodySection(section)
		if m.RFC822Size != int64(len(text)) {
			t.Errorf("%s: size %d, %d bytes", folder, m.RFC822Size, len(text))
		}
		h, _ := mail.SplitMessage(text)
		var names []string
		for _, f := range m.Flags {
			if f != `\Recent` {
				names = append(names, string(f))
			}
		}
		slices.Sort(names)
		subject := h.Get("Subject")
		if _, twice := texts[subject]; twice {
			t.Errorf("%s: %s is there twice", folder, subject)
		}
		flags[subject], texts[subject] = strings.Join(names, " "), string(text)
	}
	return flags, texts
}

func appendTo(c *imapclient.Client, folder, subject string, flags ...imap.Flag) error {
	text := "Subject: " + subject + "\r\n\r\nfrom IMAP\r\n"
	cmd := c.Append(folder, int64(len(text)), &imap.AppendOptions{Flags: flags})
	cmd.Write([]byte(text))
	cmd.Close()
	_, err := cmd.Wait()
	return err
}

// calm fails the test if Dovecot has complained.
func calm(t *testing.T, d *peertest.Dovecot) {
	t.Helper()
	log, err := os.ReadFile(d.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "Error:") || strings.Contains(line, "Panic:") || strings.Contains(line, "Warning:") && !strings.Contains(line, "Killed with signal") && !strings.Contains(line, "Shutting down logging") {
			t.Error("Dovecot: " + line)
		}
	}
}

// We and Dovecot put messages with flags and keywords into the same folders, and Dovecot
// changes and moves what is there, all at once. In the end everything is there once, whole
// and marked as it was meant.
func TestBesideDovecot(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{Path: "%n"})
	p := beside(t, d, "")
	const folder, name = "Lists/Größe & Co", "Lists.Größe & Co"
	folders := map[string]string{"": "INBOX", folder: name}
	first := delivery("first")
	first.Recipient, first.Folder, first.Create = to("ann"), folder, true
	if err := p.Deliver(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	const n = 40
	var wg sync.WaitGroup
	for ours, theirs := range folders {
		for g := range 2 {
			wg.Go(func() {
				for i := range n {
					d := delivery(fmt.Sprintf("ours-%d-%d", g, i))
					d.Recipient, d.Folder, d.Flags, d.Fresh = to("ann"), ours, []string{`\Flagged`, fmt.Sprint("ours", i%6)}, true
					if i%4 == 0 {
						d.Flags = nil
					}
					if err := p.Deliver(t.Context(), d); err != nil {
						t.Error(err)
					}
				}
			})
			c := d.Login(t, "ann@example.org")
			wg.Go(func() {
				for i := range n {
					if err := appendTo(c, theirs, fmt.Sprintf("theirs-%d-%d", g, i), `\Seen`, imap.Flag(fmt.Sprint("theirs", i%6))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		// A reader takes a look, marks what it sees, and so moves files from new to cur.
		c := d.Login(t, "ann@example.org")
		wg.Go(func() {
			if _, err := c.Select(theirs, nil).Wait(); err != nil {
				t.Error(err)
				return
			}
			for i := range n {
				var all imap.SeqSet
				all.AddRange(1, 0)
				c.Noop().Wait()
				if c.Mailbox().NumMessages == 0 {
					continue
				}
				if err := c.Store(all, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.Flag(fmt.Sprint("reader", i%3))}}, nil).Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c := d.Login(t, "ann@example.org")
	for ours, theirs := range folders {
		flags, texts := seen(t, c, theirs)
		want := 4 * n
		if ours != "" {
			want++
		}
		if len(texts) != want {
			t.Errorf("%s has %d messages, want %d", theirs, len(texts), want)
		}
		for subject, f := range flags {
			var g, i int
			var words []string
			for _, w := range strings.Fields(f) {
				if !strings.HasPrefix(w, "reader") {
					words = append(words, w)
				}
			}
			wanted := ""
			if _, err := fmt.Sscanf(subject, "ours-%d-%d", &g, &i); err == nil {
				if i%4 != 0 {
					wanted = fmt.Sprintf(`\Flagged ours%d`, i%6)
				}
				whole := delivery(subject).Message
				if texts[subject] != string(whole.Header.Block())+string(whole.Body.Inline) {
					t.Errorf("%s: %q", subject, texts[subject])
				}
			} else if _, err := fmt.Sscanf(subject, "theirs-%d-%d", &g, &i); err == nil {
				wanted = fmt.Sprintf(`\Seen theirs%d`, i%6)
			}
			if got := strings.Join(words, " "); got != wanted {
				t.Errorf("%s in %s: flags are %q, want %q", subject, theirs, got, wanted)
			}
		}
	}
	calm(t, d)
}

// Folders have the same names for us and for Dovecot, are subscribed beside its own, and one
// that it has made is used, not made again.
func TestFoldersBesideDovecot(t *testing.T) {
	t.Parallel()
	for _, names := range []string{"utf-7", "utf-8"} {
		o := peertest.DovecotOptions{Path: "%n"}
		if names == "utf-8" {
			o.Path += ":UTF-8"
		}
		d := peertest.StartDovecot(t, o)
		p := beside(t, d, "folder_names = '"+names+"'")
		c := d.Login(t, "ann@example.org")
		for _, name := range []string{"Theirs", "Größe"} {
			if err := c.Create(name, nil).Wait(); err != nil {
				t.Fatal(err)
			}
			if err := c.Subscribe(name).Wait(); err != nil {
				t.Fatal(err)
			}
		}
		ours := map[string]string{
			"Simple": "Simple", "A/B": "A.B", "A.B.C": "A.B.C", "Entwürfe": "Entwürfe", "日本語/メール": "日本語.メール", "a&b": "a&b", "a & b": "a & b",
			"€": "€", "mixed ü and & and 😀": "mixed ü and & and 😀", `back\slash`: `back\slash`, "quo\"te": "quo\"te", "per%cent": "per%cent", "Theirs": "Theirs", "Größe": "Größe",
		}
		for name := range ours {
			dl := delivery("in " + name)
			dl.Recipient, dl.Folder, dl.Create = to("ann"), name, name != "Theirs" && name != "Größe"
			if err := p.Deliver(t.Context(), dl); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := c.Create("Later", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		if err := c.Subscribe("Later").Wait(); err != nil {
			t.Fatal(err)
		}
		ours["later"] = "Later"
		subscribed, err := c.List("", "*", &imap.ListOptions{SelectSubscribed: true}).Collect()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range subscribed {
			got = append(got, l.Mailbox)
		}
		slices.Sort(got)
		if want := slices.Sorted(maps.Values(ours)); !slices.Equal(got, want) {
			t.Errorf("%s: subscribed are\n%q, want\n%q", names, got, want)
		}
		for name, theirs := range ours {
			if name == "later" {
				continue
			}
			if _, texts := seen(t, c, theirs); len(texts) != 1 || texts["in "+name] == "" && name != "日本語/メール" {
				t.Errorf("%s: %s has %d messages", names, theirs, len(texts))
			}
		}
		// A folder that its owner removed is not raised from the dead: the inbox is there.
		c = d.Login(t, "ann@example.org") // the other one may have it open
		if err := c.Delete("Theirs").Wait(); err != nil {
			t.Fatal(err)
		}
		dl := delivery("too late")
		dl.Recipient, dl.Folder = to("ann"), "Theirs"
		if err := p.Deliver(t.Context(), dl); err != nil {
			t.Error(err)
		}
		if _, texts := seen(t, c, "INBOX"); texts["too late"] == "" {
			t.Errorf("%s: the inbox has %v", names, texts)
		}
		calm(t, d)
	}
}

// We and Dovecot keep one account of what is in a mailbox: what Dovecot puts in and takes
// out counts for us, and what we put in for it.
func TestQuotaBesideDovecot(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{Path: "%n", More: `mail_plugins = quota
protocol imap {
  mail_plugins = quota imap_quota
}
plugin {
  quota = maildir:User quota
}
`})
	p := beside(t, d, "quota = '100KiB'\nquota_messages = 40")
	now := time.Now()
	p.now = func() time.Time { return now }
	large := func(key string, size int) *sdk.Delivery {
		dl := delivery(key)
		dl.Recipient, dl.Message.Body = to("ann"), mail.InlineBody([]byte(strings.Repeat("x", size-2)+"\r\n"))
		return dl
	}
	deliver := func(key string, size int) int { return mail.StatusOf(p.Deliver(t.Context(), large(key, size))).Code }
	for i := range 3 {
		if code := deliver(fmt.Sprint("k", i), 30_000); code != 250 {
			t.Fatal(code)
		}
	}
	if code := deliver("k3", 30_000); code != 452 {
		t.Errorf("over it: %d", code)
	}
	c := d.Login(t, "ann@example.org")
	usage := func() (int64, int64) {
		t.Helper()
		q, err := c.GetQuota("User quota").Wait()
		if err != nil {
			t.Fatal(err)
		}
		return q.Resources[imap.QuotaResourceStorage].Usage, q.Resources[imap.QuotaResourceMessage].Usage
	}
	if kb, n := usage(); kb < 88 || kb > 90 || n != 3 {
		t.Errorf("Dovecot counts %d KiB, %d messages", kb, n)
	}
	// Dovecot takes the limit from us, too.
	text := strings.Repeat("x", 20_000)
	cmd := c.Append("INBOX", int64(len(text)), nil)
	cmd.Write([]byte(text))
	cmd.Close()
	if _, err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "OVERQUOTA") {
		t.Errorf("Dovecot took it: %v", err)
	}
	c = d.Login(t, "ann@example.org")
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{`\Deleted`}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Expunge().Collect(); err != nil {
		t.Fatal(err)
	}
	if code := deliver("k3", 30_000); code != 250 {
		t.Errorf("after Dovecot made room: %d", code)
	}
	if err := appendTo(c, "INBOX", "small"); err != nil {
		t.Error(err)
	}
	if kb, n := usage(); n != 4 || kb > 90 {
		t.Errorf("Dovecot counts %d KiB, %d messages", kb, n)
	}
	s, err := readSizes(filepath.Join(d.Mail, "ann"))
	if sum, _ := p.sum(filepath.Join(d.Mail, "ann")); err != nil || s.total != sum || s.limit != (amount{100 << 10, 40}) {
		t.Errorf("maildirsize says %+v (%v), there is %+v", s, err, sum)
	}
	calm(t, d)
}
