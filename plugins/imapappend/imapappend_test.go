package imapappend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

var ann = mail.MustPath("ann@example.org")

// configured returns a plugin that stores on d, with more settings.
func configured(t testing.TB, d *peertest.Dovecot, more string) *Plugin {
	t.Helper()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "password"), []byte(d.MasterPassword()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := New()
	settings := fmt.Sprintf("username = %q\npassword_file = 'password'\nca_file = %q\n", d.Master, d.CA)
	if !strings.Contains(more, "address =") {
		settings += fmt.Sprintf("address = %q\n", d.IMAPS)
	}
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings + more), DataDir: data, Hostname: "mx.example.org"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.pool.close)
	return p
}

const received = "from client.example.net by mx.example.org; Wed, 15 Nov 2023 10:11:12 +0100"

func delivery(key string, to mail.Path, body string) *sdk.Delivery {
	h, b := mail.SplitMessage([]byte("Return-Path: <a@example.com>\r\nReceived: " + received + "\r\nSubject: " + key + "\r\n\r\n" + body))
	return &sdk.Delivery{Key: key, Recipient: to, Message: &mail.Message{Header: h, Body: mail.InlineBody(b)}}
}

// stored is a message as the server has it.
type stored struct {
	text  string
	flags []string
	date  time.Time
}

func fetch(t testing.TB, c *imapclient.Client, folder string) []stored {
	t.Helper()
	data, err := c.Select(folder, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		var said *imap.Error
		if errors.As(err, &said) {
			return nil
		}
		t.Fatal(err)
	}
	if data.NumMessages == 0 {
		return nil
	}
	var all imap.SeqSet
	all.AddRange(1, 0)
	section := &imap.FetchItemBodySection{Peek: true}
	msgs, err := c.Fetch(all, &imap.FetchOptions{Flags: true, InternalDate: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var out []stored
	for _, m := range msgs {
		s := stored{text: string(m.FindBodySection(section)), date: m.InternalDate}
		for _, f := range m.Flags {
			if f != `\Recent` {
				s.flags = append(s.flags, string(f))
			}
		}
		slices.Sort(s.flags)
		out = append(out, s)
	}
	return out
}

func TestConformance(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{})
	c := d.Login(t, ann.String())
	sdktest.Mailbox(t, configured(t, d, ""), ann, func(t *testing.T) int { return len(fetch(t, c, "INBOX")) })
}

// Over each kind of connection and log-in the message is there, byte for byte, with flags and
// the time at which it came.
func TestStores(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{})
	for name, settings := range map[string]string{
		"implicit": "",
		"starttls": fmt.Sprintf("address = %q\ntls = 'starttls'", d.IMAP),
		"none":     fmt.Sprintf("address = %q\ntls = 'none'", d.IMAP),
		"name":     fmt.Sprintf("address = %q\nserver_name = 'localhost'", d.IMAPS),
		"template": "login = '{user}*{username}'",
		"local":    "user = '{local}'",
		"domain":   fmt.Sprintf("username = ''\n[domain.'example.org']\naddress = %q\nusername = %q", d.IMAPS, d.Master),
	} {
		to := mail.MustPath(name + "@example.org")
		if name == "domain" {
			settings = strings.Replace(settings, "username = ''\n", "", 1)
		}
		p := configured(t, d, settings)
		dl := delivery("k-"+name, to, "line\r\n.dot\r\n\r\nno end")
		dl.Flags = []string{`\Seen`, `\Flagged`, "$Junk", `\Recent`, `\Bogus`, "a b", ""}
		dl.Fresh = true
		if err := p.Deliver(t.Context(), dl); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		user := to.String()
		if name == "local" {
			user = to.Local
		}
		got := fetch(t, d.Login(t, user), "INBOX")
		if len(got) != 1 {
			t.Errorf("%s: %d messages", name, len(got))
			continue
		}
		want := strings.Replace(string(dl.Message.Header.Block()), "\r\nReceived", "\r\nX-Postern-Delivery: <k-"+name+"@mx.example.org>\r\nReceived", 1) + "line\r\n.dot\r\n\r\nno end"
		if got[0].text != want {
			t.Errorf("%s: got\n%q, want\n%q", name, got[0].text, want)
		}
		if f := strings.Join(got[0].flags, " "); f != `$Junk \Flagged \Seen` {
			t.Errorf("%s: flags are %s", name, f)
		}
		if date := time.Date(2023, 11, 15, 9, 11, 12, 0, time.UTC); !got[0].date.Equal(date) {
			t.Errorf("%s: internal date is %v", name, got[0].date)
		}
	}
}

// Folders are made, subscribed, and found again; also where the server has other names for
// them.
func TestFolders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, more, want string }{
		{"plain", "", "Lists.Größe & Co"},
		{"slash", "namespace inbox {\n  inbox = yes\n  separator = /\n}\n", "Lists/Größe & Co"},
		{"prefix", "namespace inbox {\n  inbox = yes\n  separator = .\n  prefix = INBOX.\n}\n", "INBOX.Lists.Größe & Co"},
	} {
		d := peertest.StartDovecot(t, peertest.DovecotOptions{More: tt.more})
		p := configured(t, d, "")
		for i := range 3 {
			dl := delivery(fmt.Sprint("k", i), ann, "x\r\n")
			dl.Folder = "Lists/Größe & Co"
			if i == 2 {
				// It has gone meanwhile, which the plugin does not know.
				c := d.Login(t, ann.String())
				if err := c.Delete(tt.want).Wait(); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Deliver(t.Context(), dl); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		c := d.Login(t, ann.String())
		if got := fetch(t, c, tt.want); len(got) != 1 {
			t.Errorf("%s: %d messages", tt.name, len(got))
		}
		subscribed, err := c.List("", "*", &imap.ListOptions{SelectSubscribed: true}).Collect()
		if err != nil || !slices.ContainsFunc(subscribed, func(l *imap.ListData) bool { return l.Mailbox == tt.want }) {
			t.Errorf("%s: not subscribed: %v, %v", tt.name, subscribed, err)
		}
	}
}

// Without leave to make folders the inbox has the message; what nobody can file is refused
// for good, so that the gateway turns to the inbox.
func TestFoldersThatAreNotMade(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{})
	p := configured(t, d, "create_folders = 'asked'")
	dl := delivery("k1", ann, "x\r\n")
	dl.Folder = "Gone"
	if err := p.Deliver(t.Context(), dl); err != nil {
		t.Fatal(err)
	}
	dl = delivery("k2", ann, "x\r\n")
	dl.Folder, dl.Create = "Made", true
	if err := p.Deliver(t.Context(), dl); err != nil {
		t.Fatal(err)
	}
	c := d.Login(t, ann.String())
	if a, b, gone := len(fetch(t, c, "INBOX")), len(fetch(t, c, "Made")), len(fetch(t, c, "Gone")); a != 1 || b != 1 || gone != 0 {
		t.Errorf("INBOX has %d, Made %d, Gone %d", a, b, gone)
	}
	// It was kept in the inbox: when the folder is there later, it is still not stored again.
	if err := c.Create("Gone", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	dl = delivery("k1", ann, "x\r\n")
	dl.Folder = "Gone"
	if err := configured(t, d, "").Deliver(t.Context(), dl); err != nil {
		t.Fatal(err)
	}
	if n := len(fetch(t, c, "Gone")); n != 0 {
		t.Errorf("stored again: %d", n)
	}
	for _, name := range []string{"../../etc", "/etc", "a//b", "a/", ".", "a\x00b", "a\r\nb", "\xff", strings.Repeat("x", 10_000), "~root", "x.."} {
		dl := delivery("bad", ann, "x\r\n")
		dl.Folder, dl.Create = name, true
		if err := p.Deliver(t.Context(), dl); !mail.StatusOf(err).Permanent() {
			t.Errorf("folder %.20q: %v", name, err)
		}
	}
}

// A second attempt by a process that knows nothing finds what the first one stored, and only
// that.
func TestStoredOnce(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{})
	c := d.Login(t, ann.String())
	for _, folder := range []string{"", "Lists/Go"} {
		for _, key := range []string{"abc-1", "abc-11", "abc-1", "bc-1", "abc-11"} {
			dl := delivery(key, ann, "x\r\n")
			dl.Folder = folder
			p := configured(t, d, "")
			if err := p.Deliver(t.Context(), dl); err != nil {
				t.Fatal(err)
			}
			p.pool.close() // Dovecot wants no more than ten of one user
		}
		name := strings.ReplaceAll(folder, "/", ".")
		if folder == "" {
			name = "INBOX"
		}
		if n := len(fetch(t, c, name)); n != 3 {
			t.Errorf("%s has %d messages, want 3", name, n)
		}
		if folder == "" { // else they are found in the inbox
			all := imap.SeqSet{}
			all.AddRange(1, 0)
			if _, err := c.Select("INBOX", nil).Wait(); err != nil {
				t.Fatal(err)
			}
			c.Store(all, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{`\Deleted`}}, nil).Close()
			if _, err := c.Expunge().Collect(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Large messages, from a file, are streamed; many deliveries share few connections.
func TestManyAndLarge(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{})
	p := configured(t, d, "connections = 3")
	file := filepath.Join(t.TempDir(), "body")
	body := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 100_000)
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	const n = 30
	for i := range n {
		go func() {
			dl := delivery(fmt.Sprint("k", i), mail.MustPath(fmt.Sprintf("user%d@example.org", i%5)), "x\r\n")
			if i < 5 {
				dl.Message.Body = mail.Body{Path: file, Size: int64(len(body))}
			}
			errs <- p.Deliver(t.Context(), dl)
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for i := range 5 {
		got := fetch(t, d.Login(t, fmt.Sprintf("user%d@example.org", i)), "INBOX")
		if len(got) != n/5 || !slices.ContainsFunc(got, func(s stored) bool { return strings.HasSuffix(s.text, "\r\n\r\n"+body) }) {
			t.Errorf("user%d has %d messages", i, len(got))
		}
	}
	if n := len(p.pool.idle); n > 3 {
		t.Errorf("%d connections are kept", n)
	}
}

// Over quota is temporary, too large for the mailbox too (the server does not tell); the
// connection goes on.
func TestOverQuota(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{More: `mail_plugins = quota
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=20K
}
`})
	p := configured(t, d, "")
	if err := p.Deliver(t.Context(), delivery("k1", ann, strings.Repeat("x\r\n", 5000))); err != nil {
		t.Fatal(err)
	}
	err := p.Deliver(t.Context(), delivery("k2", ann, strings.Repeat("x\r\n", 5000)))
	if st := mail.StatusOf(err); st.Code != 452 || st.EnhancedString() != "4.2.2" || st.Remote != d.IMAPS {
		t.Errorf("%+v", err)
	}
	if err := p.Deliver(t.Context(), delivery("k3", ann, "x\r\n")); err != nil {
		t.Error(err)
	}
	if n := len(fetch(t, d.Login(t, ann.String()), "INBOX")); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// What is wrong with the server, the network or us is temporary, whatever it is.
func TestFailures(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{})
	other := peertest.StartDovecot(t, peertest.DovecotOptions{})
	for name, p := range map[string]*Plugin{
		"password":    configured(t, d, ""),
		"certificate": configured(t, d, fmt.Sprintf("address = %q", other.IMAPS)),
		"name":        configured(t, d, "server_name = 'imap.example.org'"),
		"no TLS":      configured(t, d, fmt.Sprintf("address = %q", d.IMAP)),
	} {
		if name == "password" {
			os.WriteFile(p.standard.PasswordFile, []byte("wrong"), 0o600)
		}
		ctx, cancel := contextWithTimeout(t, 5*time.Second)
		if err := p.Deliver(ctx, delivery("k", ann, "x\r\n")); err == nil || !mail.StatusOf(err).Temporary() || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	// The server goes, and comes back: connections that were kept are of no use, and nobody
	// is hurt by that.
	p := configured(t, d, "")
	if err := p.Deliver(t.Context(), delivery("k1", ann, "x\r\n")); err != nil {
		t.Fatal(err)
	}
	d.Stop()
	if err := p.Deliver(t.Context(), delivery("k2", ann, "x\r\n")); err == nil || !mail.StatusOf(err).Temporary() {
		t.Errorf("server down: %v", err)
	}
	d.Restart()
	if err := p.Deliver(t.Context(), delivery("k2", ann, "x\r\n")); err != nil {
		t.Error(err)
	}
	if n := len(fetch(t, d.Login(t, ann.String()), "INBOX")); n != 2 {
		t.Errorf("%d messages", n)
	}
	// One that hangs costs no more than the time there is.
	d.Freeze()
	defer d.Thaw()
	ctx, cancel := contextWithTimeout(t, 300*time.Millisecond)
	defer cancel()
	if err := p.Deliver(ctx, delivery("k3", ann, "x\r\n")); err == nil {
		t.Error("a server that hangs has stored something")
	}
	if n := len(p.pool.slots); n != 0 {
		t.Errorf("%d connections are in use", n)
	}
}

func TestConfigureRefuses(t *testing.T) {
	data := t.TempDir()
	os.WriteFile(filepath.Join(data, "password"), []byte("x\n"), 0o600)
	os.WriteFile(filepath.Join(data, "public"), []byte("x\n"), 0o644)
	os.WriteFile(filepath.Join(data, "empty"), []byte("\n"), 0o600)
	const good = "address = 'imap.example.org:993'\nusername = 'm'\npassword_file = 'password'\n"
	for settings, want := range map[string]string{
		"":                              "address",
		"address = 'x'":                 "host:port",
		"address = 'x:1'":               "username is missing",
		"address = 'x:1'\nusername='m'": "password_file is missing",
		strings.Replace(good, "'password'", "'gone'", 1):   "no such file",
		strings.Replace(good, "'password'", "'public'", 1): "chmod 600",
		strings.Replace(good, "'password'", "'empty'", 1):  "no password",
		good + "tls = 'none'":                              "not on this machine",
		good + "tls = 'maybe'":                             `"implicit", "starttls" or "none"`,
		good + "user = 'x'":                                "share a mailbox",
		good + "login = 'x'":                               "{user}",
		good + "create_folders = 'no'":                     "create_folders",
		good + "connections = 0":                           "connections",
		good + "ca_file = 'password'":                      "no certificate",
		good + "x = 1":                                     `unknown key "x"`,
		good + "[domain.'a b']\ntls = 'none'":              "domain",
		good + "[domain.'a.example']\ntls = 'none'":        "a.example: tls",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings), DataDir: data})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q", settings, err, want)
		}
	}
	if err := New().Configure(t.Context(), sdk.Config{Settings: []byte(good + "[domain.'a.example']\naddress = '127.0.0.1:143'\ntls = 'none'"), DataDir: data}); err != nil {
		t.Error(err)
	}
}

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
