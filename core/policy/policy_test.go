package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/sdk/mail"
)

var _ Directory = (*directory.Directory)(nil)

// rig is a Policy over a real directory: gw.example with accounts, any.example and its
// other name any.test where every address exists.
type rig struct {
	*Policy
	dir *directory.Directory
	now time.Time
}

func newRig(t *testing.T, change func(o *Options)) *rig {
	t.Helper()
	ctx := context.Background()
	dir, err := directory.Open(directory.Options{Path: filepath.Join(t.TempDir(), "directory.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	dir.Declare([]directory.Domain{
		{Name: mail.MustDomain("gw.example"), Aliases: []mail.Domain{mail.MustDomain("bücher.test")}},
		{Name: mail.MustDomain("any.example"), Aliases: []mail.Domain{mail.MustDomain("any.test")}},
	}, mail.MustPath("alice@gw.example"))
	for _, a := range []string{"alice@gw.example", "bob@gw.example", "gone@gw.example"} {
		if err := dir.AddAccount(ctx, mail.MustPath(a), "x"); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(dir.SetEnabled(ctx, mail.MustPath("gone@gw.example"), false),
		dir.AddAlias(ctx, mail.MustPath("sales@gw.example"), mail.MustPath("alice@gw.example"), mail.MustPath("x@elsewhere.example")))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{dir: dir, now: time.Unix(1_800_000_000, 0)}
	o := Options{
		Hostname:     mail.MustDomain("mx.gw.example"),
		Directory:    dir,
		AnyRecipient: []mail.Domain{mail.MustDomain("any.example")},
		Relay:        prefixes("10.0.0.0/8", "2001:db8::/32"),
		SenderLogin:  true,
		Clock:        func() time.Time { return r.now },
	}
	if change != nil {
		change(&o)
	}
	if r.Policy, err = New(o); err != nil {
		t.Fatal(err)
	}
	return r
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

const stranger = "192.0.2.66"

// connect returns a client that has connected, or the refusal.
func (r *rig) connect(addr string) (*mail.Client, mail.Status) {
	c := &mail.Client{Addr: netip.MustParseAddr(addr)}
	return c, r.Connect(context.Background(), c)
}

// rcpt asks for one recipient and returns the code and enhanced code, "" for yes.
func (r *rig) rcpt(t *testing.T, addr, user, from, to string) string {
	t.Helper()
	c, s := r.connect(addr)
	if !s.IsZero() {
		return short(s)
	}
	if c.User = user; user != "" {
		c.Class = mail.Authenticated
	}
	p, err := mail.ParsePath(to)
	if err != nil {
		return "syntax"
	}
	return short(r.Recipient(context.Background(), &mail.Envelope{Client: *c, ReversePath: mail.MustPath(from)}, p))
}

func short(s mail.Status) string {
	if s.IsZero() {
		return ""
	}
	return s.Error()[:9]
}

// TestA01OpenRelay: the twelve probes, and the claimed sender, from a stranger.
func TestA01OpenRelay(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range []struct{ id, to, want string }{
		{"A-01", "x@ext.example", "550 5.7.1"},
		{"A-02", "x%ext.example@gw.example", "550 5.1.1"},
		{"A-02", "x%ext.example@any.example", "550 5.7.1"},
		{"A-03", `"x%ext.example"@gw.example`, "550 5.1.1"},
		{"A-03", `"x%ext.example"@any.test`, "550 5.7.1"},
		{"A-04", "ext.example!x", "syntax"},
		{"A-05", "ext.example!x@gw.example", "550 5.1.1"},
		{"A-05", "ext.example!x@any.example", "550 5.7.1"},
		{"A-06", "x@ext.example@gw.example", "syntax"},
		{"A-07", `"x@ext.example"@gw.example`, "550 5.1.1"},
		{"A-07", `"x@ext.example"@any.example`, "550 5.7.1"},
		{"A-08", "@gw.example:x@ext.example", "syntax"},
		{"A-09", "x@[127.0.0.1]", "550 5.7.1"},
		{"A-10", "x@[IPv6:::1]", "550 5.7.1"},
		{"A-11", "x@ext.example.", "550 5.7.1"},
		{"A-12", "nobody@gw.example", "550 5.1.1"},
		{"A-12", "alice@gw.example", ""},
		{"A-13", "x@ext.example", "550 5.7.1"},
		{"subdomain", "x@sub.gw.example", "550 5.7.1"},
		{"superdomain", "x@example", "550 5.7.1"},
		{"own hostname", "x@mx.gw.example", "550 5.7.1"},
	} {
		for _, from := range []string{"", "x@ext.example", "alice@gw.example", "postmaster@gw.example"} {
			if got := r.rcpt(t, stranger, "", from, c.to); got != c.want {
				t.Errorf("%s: from <%s> to <%s>: %q, want %q", c.id, from, c.to, got, c.want)
			}
		}
	}
}

// TestRelaying: who may send elsewhere, and that it stays so for local recipients.
func TestRelaying(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range []struct{ addr, user, to, want string }{
		{"10.1.2.3", "", "x@ext.example", ""},
		{"2001:db8:1::1", "", "x@ext.example", ""},
		{stranger, "alice@gw.example", "x@ext.example", ""},
		{stranger, "alice@gw.example", "a%b@any.example", ""},
		{"10.1.2.3", "", "nobody@gw.example", "550 5.1.1"},
		{stranger, "alice@gw.example", "nobody@gw.example", "550 5.1.1"},
		{stranger, "", "whoever@any.example", ""},
		{stranger, "", "whoever@ANY.test", ""},
		{stranger, "", "alice+tag@gw.example", ""},
		{stranger, "", "sales@BÜCHER.test", ""},
		{stranger, "", "sales@xn--bcher-kva.test", ""},
		{stranger, "", "gone@gw.example", "550 5.2.1"},
	} {
		if got := r.rcpt(t, c.addr, c.user, "", c.to); got != c.want {
			t.Errorf("%s %q to %s: %q, want %q", c.addr, c.user, c.to, got, c.want)
		}
	}
}

// TestA14Networks: the edges of a relay network, in every form of an address.
func TestA14Networks(t *testing.T) {
	r := newRig(t, nil)
	for addr, relay := range map[string]bool{
		"10.0.0.0": true, "10.255.255.255": true, "9.255.255.255": false, "11.0.0.0": false,
		"::ffff:10.0.0.1": true, "::ffff:0a00:0001": true, "::ffff:11.0.0.1": false,
		"::10.0.0.1": false, "64:ff9b::10.0.0.1": false,
		"2001:db8::": true, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": true, "2001:db7:ffff::": false, "2001:db9::": false,
		"2001:db8::1%eth0": true,
	} {
		c, s := r.connect(addr)
		if !s.IsZero() || (c.Class == mail.Relay) != relay {
			t.Errorf("%s: class %s, %v", addr, c.Class, s)
		}
		want := "550 5.7.1"
		if relay {
			want = ""
		}
		if got := r.rcpt(t, addr, "", "", "x@ext.example"); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	// A client without an address (a unix socket) is in no network.
	c := &mail.Client{}
	if s := r.Connect(context.Background(), c); !s.IsZero() || c.Class != mail.Stranger {
		t.Errorf("no address: %v %s", s, c.Class)
	}
}

// TestA25SenderLogin: who logged in sends as himself.
func TestA25SenderLogin(t *testing.T) {
	for _, c := range []struct {
		user, from string
		bound      bool
		want       string
	}{
		{"alice@gw.example", "alice@gw.example", true, ""},
		{"alice@gw.example", "ALICE@bücher.test", true, ""},
		{"alice@gw.example", "alice+news@gw.example", true, ""},
		{"alice@gw.example", "sales@gw.example", true, ""},
		{"alice@gw.example", "postmaster@gw.example", true, ""},
		{"alice@gw.example", "", true, ""},
		{"alice@gw.example", "bob@gw.example", true, "553 5.7.1"},
		{"bob@gw.example", "sales@gw.example", true, "553 5.7.1"},
		{"alice@gw.example", "nobody@gw.example", true, "553 5.7.1"},
		{"alice@gw.example", "alice@ext.example", true, "553 5.7.1"},
		{"alice@gw.example", "alice@any.example", true, "553 5.7.1"},
		{"alice@gw.example", "bob@gw.example", false, ""},
		{"", "bob@gw.example", true, ""},
		{"not an address", "bob@gw.example", true, "451 4.3.0"},
	} {
		r := newRig(t, func(o *Options) { o.SenderLogin = c.bound })
		client, _ := r.connect(stranger)
		client.User = c.user
		if got := short(r.Mail(context.Background(), client, mail.MustPath(c.from), 0)); got != c.want {
			t.Errorf("%q as <%s>, bound %v: %q, want %q", c.user, c.from, c.bound, got, c.want)
		}
	}
}

// TestA25Author: who logged in writes as himself, whatever the form in which From has it.
func TestA25Author(t *testing.T) {
	for _, c := range []struct {
		user, header string
		bound        bool
		want         string
	}{
		{"alice@gw.example", "From: Alice <alice@gw.example>", true, ""},
		{"alice@gw.example", "From: alice+x@bücher.test, Sales <sales@gw.example>", true, ""},
		{"alice@gw.example", "From: alice@ext.example", true, ""}, // is that domain's affair
		{"alice@gw.example", "Subject: no author", true, ""},
		{"alice@gw.example", "From: =?x-unknown?q?=FF?= <alice@gw.example>", true, ""},
		{"alice@gw.example", "From: \xe9 <alice@gw.example>", true, ""},
		{"alice@gw.example", "From: bob@gw.example", true, "550 5.7.1"},
		{"alice@gw.example", "From: alice@gw.example, bob@gw.example", true, "550 5.7.1"},
		{"alice@gw.example", "From: alice@gw.example\r\nfrom: bob@gw.example", true, "550 5.7.1"},
		{"alice@gw.example", "From: \"bob\"@gw.example", true, "550 5.7.1"},
		{"alice@gw.example", "From: All: alice@gw.example, BOB@GW.example;", true, "550 5.7.1"},
		{"alice@gw.example", "From: nobody@gw.example", true, "550 5.7.1"},
		{"alice@gw.example", "From: \xe9 <bob@gw.example>", true, "550 5.7.1"},
		{"alice@gw.example", "From: bob@gw.example <alice@gw.example> (", true, "550 5.7.1"},
		{"alice@gw.example", "From: bob@gw.example", false, ""},
		{"", "From: bob@gw.example", true, ""},
		{"not an address", "From: bob@gw.example", true, "451 4.3.0"},
		{"alice@gw.example", "From: alice@gw.example" + strings.Repeat(", alice@gw.example", maxAuthors-1), true, ""},
		{"alice@gw.example", "From: a@ext.example\r\nFrom: alice@gw.example" + strings.Repeat(", alice@gw.example", maxAuthors-1), true, "550 5.7.1"},
		{"alice@gw.example", "From: " + strings.Repeat("(", maxFrom+1), true, "550 5.7.1"}, // M-04
		{"alice@gw.example", "From: alice@gw.example, " + strings.Repeat("(", maxFrom-100), true, ""},
	} {
		r := newRig(t, func(o *Options) { o.SenderLogin = c.bound })
		client, _ := r.connect(stranger)
		client.User = c.user
		if got := short(r.Author(context.Background(), client, mail.NewHeader([]byte(c.header+"\r\n\r\n")))); got != c.want {
			t.Errorf("%q with %q, bound %v: %q, want %q", c.user, c.header, c.bound, got, c.want)
		}
	}
}

// TestA26RecipientLimit: at the limit, one below and one above.
func TestA26RecipientLimit(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Recipients = 100 })
	c, _ := r.connect(stranger)
	for n, want := range map[int]string{98: "", 99: "", 100: "452 4.5.3", 101: "452 4.5.3"} {
		e := &mail.Envelope{Client: *c, Recipients: make([]mail.Recipient, n)}
		if got := short(r.Recipient(context.Background(), e, mail.MustPath("alice@gw.example"))); got != want {
			t.Errorf("recipient %d of 100: %q, want %q", n+1, got, want)
		}
	}
}

// TestA29Postmaster: always there, under every name of ours, and nowhere else.
func TestA29Postmaster(t *testing.T) {
	r := newRig(t, nil)
	for to, want := range map[string]string{
		"postmaster@gw.example": "", "PostMaster@bücher.test": "", "postmaster@any.example": "", "postmaster@mx.gw.example": "",
		"postmaster@ext.example": "550 5.7.1", "postmaster+x@any.example": "",
	} {
		if got := r.rcpt(t, stranger, "", "", to); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
	// RCPT TO:<> never comes this far, but it would not pass.
	c, _ := r.connect(stranger)
	if got := r.Recipient(context.Background(), &mail.Envelope{Client: *c}, mail.Path{}); !got.Permanent() {
		t.Errorf("<>: %v", got)
	}
}

// TestRecipientRuleAtAliases: a rule about a mailbox counts under every name of its domain,
// unless that name has a rule of its own.
func TestRecipientRuleAtAliases(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Recipients = []AddressRule{
			{Match: []string{"open@any.test"}},
			{Match: []string{"former@any.example", "open@any.example", "alice@gw.example"}, Reject: true},
		}
	})
	for to, want := range map[string]string{
		"former@any.example": "554 5.7.1", "Former@any.test": "554 5.7.1", "alice@bücher.test": "554 5.7.1",
		"open@any.example": "554 5.7.1", "open@any.test": "", "other@any.test": "", "bob@bücher.test": "", "x@ext.example": "550 5.7.1",
	} {
		if got := r.rcpt(t, stranger, "", "", to); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
}

func TestMessageSize(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Limits.MessageSize = 1000
		o.Networks = []NetworkLimits{{prefixes("198.51.100.0/24"), Limits{MessageSize: 500}}}
	})
	for _, c := range []struct {
		addr string
		size int64
		want string
	}{
		{stranger, 0, ""}, {stranger, 999, ""}, {stranger, 1000, ""}, {stranger, 1001, "552 5.3.4"}, {stranger, 1<<63 - 1, "552 5.3.4"},
		{"198.51.100.7", 500, ""}, {"198.51.100.7", 501, "552 5.3.4"}, {"::ffff:198.51.100.7", 501, "552 5.3.4"},
	} {
		client, _ := r.connect(c.addr)
		if got := short(r.Mail(context.Background(), client, mail.Path{}, c.size)); got != c.want {
			t.Errorf("%s, %d bytes: %q, want %q", c.addr, c.size, got, c.want)
		}
	}
}

func TestAccessLists(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Relay = prefixes("203.0.113.0/24")
		o.Clients = []ClientRule{
			{Networks: prefixes("203.0.113.5/32")},
			{Networks: prefixes("203.0.113.0/24", "2001:db8:bad::/48"), Reject: true, Text: "not you"},
		}
		o.Senders = []AddressRule{
			{Match: []string{"good@spam.example"}},
			{Match: []string{"spam.example", "*.spam.example", "Mallory@ext.example", "bücher.example"}, Reject: true},
		}
		o.Recipients = []AddressRule{{Match: []string{"bob@gw.example", "*.sub.example"}, Reject: true, Text: "Bob\r\nhas left"}}
	})
	for addr, want := range map[string]string{
		"203.0.113.4": "554 5.7.1", "203.0.113.5": "", "203.0.112.255": "", "203.0.114.0": "",
		"::ffff:203.0.113.4": "554 5.7.1", "2001:db8:bad::1": "554 5.7.1", "2001:db8:bae::1": "",
	} {
		if _, s := r.connect(addr); short(s) != want {
			t.Errorf("client %s: %v, want %q", addr, s, want)
		}
	}
	if c, _ := r.connect("203.0.113.4"); c.Class != mail.Stranger {
		t.Errorf("a refused client has class %s", c.Class)
	}
	if _, s := r.connect("203.0.113.4"); s.Text != "not you" {
		t.Errorf("text %q", s.Text)
	}
	client, _ := r.connect(stranger)
	for from, want := range map[string]string{
		"": "", "a@spam.example": "554 5.7.1", "a@SPAM.example": "554 5.7.1", "a@x.spam.example": "554 5.7.1", "a@notspam.example": "",
		"good@spam.example": "", "GOOD@spam.example": "", "mallory@ext.example": "554 5.7.1", "x@ext.example": "",
		"a@xn--bcher-kva.example": "554 5.7.1", "a@BÜCHER.example": "554 5.7.1",
	} {
		if got := short(r.Mail(context.Background(), client, mail.MustPath(from), 0)); got != want {
			t.Errorf("sender <%s>: %q, want %q", from, got, want)
		}
	}
	for to, want := range map[string]string{
		"bob@gw.example": "554 5.7.1", "BOB@gw.example": "554 5.7.1", "alice@gw.example": "", "x@a.sub.example": "554 5.7.1", "x@sub.example": "",
	} {
		if got := r.rcpt(t, "203.0.113.5", "", "", to); got != want {
			t.Errorf("recipient <%s>: %q, want %q", to, got, want)
		}
	}
	s := r.Recipient(context.Background(), &mail.Envelope{Client: *client}, mail.MustPath("bob@gw.example"))
	if strings.ContainsAny(s.Text, "\r\n") {
		t.Errorf("text %q", s.Text)
	}
	// An allowed sender or client has no right to relay.
	if got := r.rcpt(t, stranger, "", "good@spam.example", "x@ext.example"); got != "550 5.7.1" {
		t.Errorf("relaying for an allowed sender: %q", got)
	}
}

// A full mailbox is refused for now; of several targets nobody is asked.
func TestRoom(t *testing.T) {
	var asked []string
	r := newRig(t, func(o *Options) {
		o.Room = func(_ context.Context, to mail.Path, size int64) mail.Status {
			asked = append(asked, fmt.Sprint(to, " ", size))
			if to.Local == "bob" {
				return mail.Temporary(452, 2, 2, "Mailbox full")
			}
			return mail.Status{}
		}
	})
	c, _ := r.connect(stranger)
	e := &mail.Envelope{Client: *c, ReversePath: mail.MustPath("x@example.net"), Size: 4711}
	for to, want := range map[string]int{"alice@gw.example": 0, "bob@bücher.test": 452, "sales@gw.example": 0, "x@any.example": 0, "postmaster@gw.example": 0, "nobody@gw.example": 550} {
		if st := r.Recipient(t.Context(), e, mail.MustPath(to)); st.Code != want {
			t.Errorf("%s: %v", to, st)
		}
	}
	slices.Sort(asked)
	if got := strings.Join(asked, ", "); got != "alice@gw.example 4711, bob@gw.example 4711" {
		t.Error(got)
	}
}

// failing is a directory that does not answer.
type failing struct{ err error }

func (f failing) Local(context.Context, mail.Domain) (mail.Domain, bool, error) {
	return mail.Domain{}, false, f.err
}
func (f failing) Resolve(context.Context, mail.Path) ([]mail.Path, error) { return nil, f.err }

// TestDirectoryFailure: never a permanent refusal, and never a yes.
func TestDirectoryFailure(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Directory = failing{errors.New("disk on fire")} })
	for _, to := range []string{"alice@gw.example", "x@ext.example", "postmaster@gw.example"} {
		if got := r.rcpt(t, stranger, "", "", to); got != "451 4.3.0" {
			t.Errorf("%s: %q", to, got)
		}
	}
	c, _ := r.connect(stranger)
	c.User = "alice@gw.example"
	s := r.Mail(context.Background(), c, mail.MustPath("alice@gw.example"), 0)
	if short(s) != "451 4.3.0" || strings.Contains(s.Text, "fire") {
		t.Errorf("sender: %v", s)
	}
}

func TestNewChecksOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no directory":  {},
		"bad sender":    {Directory: failing{}, Senders: []AddressRule{{Match: []string{"a@"}}}},
		"bad recipient": {Directory: failing{}, Recipients: []AddressRule{{Match: []string{"*."}}}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
