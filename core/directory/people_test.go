package directory

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

func paths(texts ...string) []mail.Path {
	var out []mail.Path
	for _, s := range texts {
		out = append(out, mail.MustPath(s))
	}
	return out
}

func TestDomains(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	com, other := mail.MustDomain("stored.example"), mail.MustDomain("bücher.example")
	dom := Domain{Name: com, Aliases: []mail.Domain{other}, Deliver: []string{"smtp://192.0.2.1:25", "smtp://192.0.2.2:25"}, Recipients: "any", Planner: "p",
		Postmaster: mail.MustPath("boss@example.org"), Quota: Quota{1 << 30, 1000}, CatchAll: paths("a@example.com", "b@example.com")}
	if err := d.AddDomain(ctx, dom); err != nil {
		t.Fatal(err)
	}
	if all, err := d.Domains(ctx); err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], dom) {
		t.Errorf("stored %+v\n%+v %v", dom, all, err)
	}
	for what, again := range map[string]Domain{"again": {Name: com}, "declared": {Name: mail.MustDomain("example.net")}, "another name of one": {Name: other},
		"with another's name": {Name: mail.MustDomain("x.example"), Aliases: []mail.Domain{other}}} {
		if err := d.AddDomain(ctx, again); !errors.Is(err, ErrExists) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, bad := range map[string]Domain{"a literal": {Name: mail.MustDomain("[192.0.2.1]")}, "nothing": {}, "a quota below zero": {Name: mail.MustDomain("x.example"), Quota: Quota{Bytes: -1}},
		"two lines": {Name: mail.MustDomain("x.example"), Deliver: []string{"a\nb"}}} {
		if err := d.AddDomain(ctx, bad); err == nil {
			t.Errorf("%s is a domain", what)
		}
	}
	if err := d.AddAccount(ctx, mail.MustPath("a@bücher.example"), "x"); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{"a@stored.example": "a@stored.example", "a@bücher.example": "a@stored.example", "other@stored.example": "a@example.com b@example.com",
		"postmaster@stored.example": "not found"} {
		if address == "postmaster@stored.example" {
			account(t, d, "boss@example.org")
			want = "boss@example.org"
		}
		if got := resolve(d, address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	err := d.SetDomain(ctx, com, func(dom *Domain) error {
		dom.Aliases, dom.CatchAll, dom.Quota.Bytes = nil, nil, 5
		return nil
	})
	if got, err2 := d.Domain(ctx, com); err != nil || err2 != nil || len(got.Aliases) != 0 || len(got.CatchAll) != 0 || got.Quota != (Quota{5, 1000}) || len(got.Deliver) != 2 {
		t.Errorf("changed: %+v %v %v", got, err, err2)
	}
	if got := resolve(d, "a@bücher.example"); got != "not local" {
		t.Errorf("a name that was taken away: %s", got)
	}
	for what, name := range map[string]string{"unknown": "unknown.example", "declared": "example.org"} {
		if err := d.SetDomain(ctx, mail.MustDomain(name), func(*Domain) error { return nil }); err == nil {
			t.Errorf("%s: changed", what)
		}
		if err := d.RemoveDomain(ctx, mail.MustDomain(name), true); err == nil {
			t.Errorf("%s: removed", what)
		}
	}
	if err := d.RemoveDomain(ctx, com, false); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("a domain with an account: %v", err)
	}
	if err := d.RemoveDomain(ctx, com, true); err != nil {
		t.Error(err)
	}
	if got := resolve(d, "a@stored.example"); got != "not local" {
		t.Errorf("removed domain: %s", got)
	}
	// Stored and, later, declared too: the stored one goes, what belongs to the domain stays.
	both := mail.MustDomain("both.example")
	if err := errors.Join(d.AddDomain(ctx, Domain{Name: both}), d.AddAccount(ctx, mail.MustPath("a@both.example"), "x")); err != nil {
		t.Fatal(err)
	}
	d.Declare([]Domain{{Name: both}}, mail.Path{})
	if err := d.RemoveDomain(ctx, both, true); err != nil {
		t.Error(err)
	}
	if got := resolve(d, "a@both.example"); got != "a@both.example" {
		t.Errorf("an account of a domain that is declared: %s", got)
	}
	if err := d.RemoveDomain(ctx, both, true); err == nil {
		t.Error("a declared domain is removed")
	}
	for _, table := range ofDomain {
		var n int
		if err := d.db.QueryRow(`SELECT count(*) FROM ` + table + ` WHERE domain = 'stored.example'`).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows of a removed domain in %s, %v", n, table, err)
		}
	}
}

// A gateway knows a stored domain once it has declared it, and not before.
func TestOnlyDeclared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory.db")
	d, err := Open(Options{Path: path, OnlyDeclared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dom := Domain{Name: mail.MustDomain("stored.example"), CatchAll: paths("x@example.com")}
	if err := d.AddDomain(context.Background(), dom); err != nil {
		t.Fatal(err)
	}
	if got := resolve(d, "a@stored.example"); got != "not local" {
		t.Error(got)
	}
	dom.Stored = true
	d.Declare([]Domain{dom}, mail.Path{})
	if got := resolve(d, "a@stored.example"); got != "x@example.com" {
		t.Error(got)
	}
	if err := d.RemoveDomain(context.Background(), dom.Name, false); err != nil {
		t.Errorf("a stored domain that is declared cannot be removed: %v", err)
	}
}

func TestGroups(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	account(t, d, "alice@example.org", "bob@example.org", "gone@example.org")
	if err := d.SetEnabled(ctx, mail.MustPath("gone@example.org"), false); err != nil {
		t.Fatal(err)
	}
	team, all := mail.MustPath("team@example.org"), mail.MustPath("all@example.org")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.AddGroup(ctx, team, SendersAnyone, paths("alice@example.org", "Far@example.com", "gone@example.org")...))
	must(d.AddGroup(ctx, all, SendersAnyone, paths("team@example.net", "bob@example.org", "alice+all@example.org")...))
	must(d.AddGroup(ctx, mail.MustPath("empty@example.org"), SendersAnyone))
	for address, want := range map[string]string{
		"team@example.org":   "Far@example.com alice@example.org",
		"TEAM+x@example.net": "Far@example.com alice@example.org",
		"all@example.org":    "Far@example.com alice@example.org bob@example.org",
		"empty@example.org":  "not found",
	} {
		if got := resolve(d, address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	must(d.AddMembers(ctx, mail.MustPath("empty@example.org"), paths("bob@example.org")...))
	must(d.RemoveMembers(ctx, team, paths("FAR@example.com")...))
	if got := resolve(d, "team@example.org"); got != "alice@example.org" {
		t.Error(got)
	}
	groups, err := d.Groups(ctx)
	if err != nil || len(groups) != 3 || groups[0].Address != all || len(groups[0].Members) != 3 || groups[2].Senders != SendersAnyone {
		t.Errorf("%+v %v", groups, err)
	}
	if aliases, err := d.Aliases(ctx); err != nil || len(aliases) != 0 {
		t.Errorf("groups are aliases too: %v %v", aliases, err)
	}
	if led, err := d.LeadingTo(ctx, mail.MustPath("bob@example.org")); err != nil || !slices.Equal(led, paths("all@example.org", "empty@example.org")) {
		t.Errorf("led to bob: %v %v", led, err)
	}
	must(d.RemoveGroup(ctx, mail.MustPath("empty@example.org")))
	for what, err := range map[string]error{
		"a group again":             d.AddGroup(ctx, team, SendersAnyone),
		"a group at an account":     d.AddGroup(ctx, mail.MustPath("bob@example.org"), SendersAnyone),
		"an account at a group":     d.AddAccount(ctx, team, "x"),
		"an alias at a group":       d.AddAlias(ctx, team, mail.MustPath("bob@example.org")),
		"unknown senders":           d.AddGroup(ctx, mail.MustPath("g@example.org"), "nobody"),
		"members of no group":       d.AddMembers(ctx, mail.MustPath("empty@example.org"), mail.MustPath("bob@example.org")),
		"a member again":            d.AddMembers(ctx, team, mail.MustPath("alice@example.org")),
		"removing who is no member": d.RemoveMembers(ctx, team, mail.MustPath("bob@example.org")),
		"removing a group as alias": d.RemoveAlias(ctx, team),
		"removing no group":         d.RemoveGroup(ctx, mail.MustPath("bob@example.org")),
		"a group elsewhere":         d.AddGroup(ctx, mail.MustPath("g@example.com"), SendersAnyone),
	} {
		if err == nil {
			t.Errorf("%s is possible", what)
		}
	}
}

// Loops and members that are missing are refused when they are made, and nothing is changed.
func TestAliasChecks(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	account(t, d, "alice@example.org")
	d.Declare([]Domain{{Name: mail.MustDomain("example.org"), Aliases: []mail.Domain{mail.MustDomain("example.net")}}, {Name: mail.MustDomain("behind.example"), Recipients: RecipientsAny},
		{Name: mail.MustDomain("ldap.example"), Elsewhere: true}}, mail.Path{})
	for _, good := range [][]string{{"a@example.org", "alice@example.net"}, {"b@example.org", "a@example.org", "c@example.com"}, {"alice@example.org", "alice@example.org", "copy@example.com"},
		{"c@example.org", "anybody@behind.example", "who@ldap.example"}, {"d@example.org", "alice+tag@example.org"}, {"e@example.org", "postmaster@example.org"}} {
		if err := d.AddAlias(ctx, mail.MustPath(good[0]), paths(good[1:]...)...); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range []struct{ address, target, want string }{
		{"x@example.org", "nobody@example.org", "nobody@example.org does not exist"},
		{"x@example.org", "x@example.org", "leads to itself"},
		{"a@example.org", "b@example.org", "leads back to itself: a@example.org -> b@example.org -> a@example.org"},
		{"a@example.org", "b+tag@example.net", "leads back to itself"},
		{"a@example.org", "a+tag@example.org", "leads back to itself"},
		{"@example.org", "nobody@example.org", "does not exist"},
		{"x@example.org", "alice", "needs a local part and a domain"},
	} {
		p := mail.Path{Domain: mail.MustDomain("example.org")}
		if bad.address[0] != '@' {
			p = mail.MustPath(bad.address)
		}
		target, err := mail.ParsePath(bad.target)
		if err != nil {
			target = mail.Path{Local: bad.target}
		}
		if err := d.AddAlias(ctx, p, mail.MustPath("other@example.com"), target); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s -> %s: %v", bad.address, bad.target, err)
		}
	}
	if got := resolve(d, "x@example.org"); got != "not found" {
		t.Errorf("something of an alias that was refused is there: %s", got)
	}
	if err := d.AddGroup(ctx, mail.MustPath("g@example.org"), SendersAnyone, paths("b@example.org", "h@example.org")...); err == nil {
		t.Error("a group of somebody who does not exist")
	}
	if err := d.AddGroup(ctx, mail.MustPath("g@example.org"), SendersAnyone); err != nil {
		t.Fatal(err)
	}
	if err := d.AddGroup(ctx, mail.MustPath("h@example.org"), SendersAnyone, mail.MustPath("g@example.org")); err != nil {
		t.Fatal(err)
	}
	if err := d.AddMembers(ctx, mail.MustPath("g@example.org"), paths("h@example.org")...); err == nil || !strings.Contains(err.Error(), "leads back") {
		t.Errorf("groups in a circle: %v", err)
	}
	chain := "end@example.com"
	for i := range maxDepth + 2 {
		next := "chain" + string(rune('a'+i)) + "@example.org"
		err := d.AddAlias(ctx, mail.MustPath(next), mail.MustPath(chain))
		if (err != nil) != (i > maxDepth) {
			t.Errorf("%d aliases in a chain: %v", i+1, err)
		}
		chain = next
	}
}

func TestMaySend(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	account(t, d, "alice@example.org", "bob@example.org")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.AddGroup(ctx, mail.MustPath("open@example.org"), SendersAnyone, paths("alice@example.org")...))
	must(d.AddGroup(ctx, mail.MustPath("staff@example.org"), SendersAuthenticated, paths("alice@example.org")...))
	must(d.AddAlias(ctx, mail.MustPath("ally@example.org"), mail.MustPath("alice@example.org")))
	must(d.AddGroup(ctx, mail.MustPath("inner@example.org"), SendersMembers, paths("ally@example.org", "far@example.com")...))
	must(d.AddGroup(ctx, mail.MustPath("outer@example.org"), SendersMembers, paths("inner@example.org")...))
	must(d.AddGroup(ctx, mail.MustPath("public@example.org"), SendersAnyone, paths("outer@example.org")...))
	must(d.AddAlias(ctx, mail.MustPath("name@example.org"), mail.MustPath("outer@example.org")))
	must(d.AddAlias(ctx, mail.MustPath("list@example.org"), paths("outer@example.org", "bob@example.org")...))
	who := map[string]Sender{
		"stranger": {ReversePath: mail.MustPath("x@example.com")},
		"bounce":   {},
		"forger":   {ReversePath: mail.MustPath("alice@example.org")},
		"relay":    {Trusted: true, ReversePath: mail.MustPath("x@example.com")},
		"printer":  {Trusted: true, ReversePath: mail.MustPath("alice@example.org")},
		"alice":    {Trusted: true, Account: mail.MustPath("alice@example.org"), ReversePath: mail.MustPath("other@example.com")},
		"bob":      {Trusted: true, Account: mail.MustPath("bob@example.org"), ReversePath: mail.MustPath("far@example.com")},
		"far":      {ReversePath: mail.MustPath("far@example.com")},
	}
	members := "alice far printer"
	for address, want := range map[string]string{
		"open@example.org": "alice bob bounce far forger printer relay stranger", "alice@example.org": "alice bob bounce far forger printer relay stranger", "nobody@example.org": "alice bob bounce far forger printer relay stranger",
		"public@example.org": "alice bob bounce far forger printer relay stranger", "list@example.org": "alice bob bounce far forger printer relay stranger",
		"staff@example.org": "alice bob printer relay", "staff+x@example.net": "alice bob printer relay",
		"inner@example.org": members, "outer@example.org": members, "OUTER@example.net": members, "name@example.org": members,
	} {
		var got []string
		for name, s := range who {
			switch err := d.MaySend(ctx, s, mail.MustPath(address)); {
			case err == nil:
				got = append(got, name)
			case !errors.Is(err, ErrNotPermitted):
				t.Errorf("%s to %s: %v", name, address, err)
			}
		}
		slices.Sort(got)
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%s: %s; want %s", address, g, want)
		}
	}
}

func TestRewrite(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	at := func(s string) mail.Path {
		if domain, ok := strings.CutPrefix(s, "@"); ok {
			return mail.Path{Domain: mail.MustDomain(domain)}
		}
		return mail.MustPath(s)
	}
	for _, r := range [][3]string{{"recipient", "Old@example.org", "New@example.org"}, {"recipient", "@old.example", "@example.org"}, {"recipient", "boss@old.example", "chief@example.com"},
		{"recipient", "new@example.org", "newer@example.org"}, {"recipient", "@all.example", "one@example.org"}, {"sender", "@host.example.org", "@example.org"}} {
		if err := d.AddRewrite(ctx, Rewrite{RewriteKind(r[0]), at(r[1]), at(r[2])}); err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}
	for _, c := range [][3]string{
		{"recipient", "OLD@example.org", "New@example.org"}, // once: not on to newer
		{"recipient", "Any.One+tag@old.example", "Any.One+tag@example.org"},
		{"recipient", "boss@old.example", "chief@example.com"}, // the very address first
		{"recipient", "x@all.example", "one@example.org"},
		{"recipient", "old+x@example.org", "old+x@example.org"},
		{"recipient", "x@sub.old.example", "x@sub.old.example"},
		{"recipient", "x@host.example.org", "x@host.example.org"},
		{"sender", "root@host.example.org", "root@example.org"},
		{"sender", "old@example.org", "old@example.org"},
	} {
		if got, err := d.Rewrite(ctx, RewriteKind(c[0]), mail.MustPath(c[1])); err != nil || got.String() != c[2] {
			t.Errorf("%v: %s %v", c, got, err)
		}
	}
	if got, err := d.Rewrite(ctx, RewriteSender, mail.Path{}); err != nil || !got.IsZero() {
		t.Errorf("the null reverse-path: %v %v", got, err)
	}
	for what, r := range map[string]Rewrite{"twice": {RewriteSender, at("@host.example.org"), at("@example.net")}, "no kind": {"both", at("a@example.org"), at("b@example.org")},
		"nothing": {RewriteSender, at("a@example.org"), at("A@example.org")}, "an address to a domain": {RewriteSender, at("a@example.org"), at("@example.net")}} {
		if err := d.AddRewrite(ctx, r); err == nil {
			t.Errorf("%s is a rule", what)
		}
	}
	if err := d.RemoveRewrite(ctx, RewriteSender, at("@HOST.example.org")); err != nil {
		t.Error(err)
	}
	if all, err := d.Rewrites(ctx); err != nil || len(all) != 5 {
		t.Errorf("%v %v", all, err)
	}
	if got, _ := d.Rewrite(ctx, RewriteSender, mail.MustPath("root@host.example.org")); got.String() != "root@host.example.org" {
		t.Errorf("after the rule is gone: %s", got)
	}
}
