package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/postern-mail/postern/sdk/mail"
)

// scramLogin has a client of SCRAM-SHA-256 log in. It returns the account, and checks that the
// server proved that it knows the password.
func scramLogin(t *testing.T, a *Authenticator, username, password, authzid string) (string, error) {
	t.Helper()
	client, err := scram.SHA256.NewClient(username, password, authzid)
	if err != nil {
		t.Fatal(err)
	}
	c := client.NewConversation()
	x, err := a.Begin(context.Background(), &mail.Client{Addr: netip.MustParseAddr("192.0.2.1")}, ScramSHA256)
	if err != nil {
		return "", err
	}
	var challenge []byte
	for {
		response, err := c.Step(string(challenge))
		if err != nil {
			t.Fatalf("the client is not content: %v", err)
		}
		var done bool
		if challenge, done, err = x.Next([]byte(response)); err != nil {
			return x.Account(), err
		}
		if done {
			if !c.Valid() {
				t.Error("the client has no proof of the server")
			}
			return x.Account(), nil
		}
	}
}

func TestScram(t *testing.T) {
	f := newRig(t)
	for _, c := range []struct{ username, password, authzid, account string }{
		{"alice@example.org", "correct", "", "alice@example.org"},
		{"ALICE@example.org", "correct", "", "alice@example.org"},
		{"alice@example.org", "correct", "alice@example.org", "alice@example.org"},
		{"alice@example.org", "correct", "bob@example.org", ""},
		{"alice@example.org", "Correct", "", ""},
		{"nobody@example.org", "correct", "", ""},
		{"no address at all", "correct", "", ""},
	} {
		account, err := scramLogin(t, f.Authenticator, c.username, c.password, c.authzid)
		if account != c.account || (err == nil) != (c.account != "") || err != nil && !errors.Is(err, error(errCredentials)) {
			t.Errorf("%+v: %q %v", c, account, err)
		}
	}
}

// Each password of an account opens it, and none of a revoked name.
func TestAppPasswords(t *testing.T) {
	f := newRig(t)
	v := f.accounts.m["alice@example.org"]
	for _, name := range []string{"phone", "laptop"} {
		k, err := v.Key("app " + name)
		if err != nil {
			t.Fatal(err)
		}
		k.Name = name
		v.Apps = append(v.Apps, k)
	}
	f.accounts.m["alice@example.org"] = v
	f.derive = derive
	var used []string
	f.AppUsed = func(_ context.Context, account, name string) { used = append(used, account+" "+name) }
	plain := func(password string) error {
		_, err := f.Authenticate(context.Background(), &mail.Client{Addr: netip.MustParseAddr("192.0.2.1")}, "", "alice@example.org", password)
		return err
	}
	for _, password := range []string{"app phone", "app laptop", "correct", "app phone"} {
		if err := plain(password); err != nil {
			t.Errorf("%s: %v", password, err)
		}
		if _, err := scramLogin(t, f.Authenticator, "alice@example.org", password, ""); err != nil {
			t.Errorf("SCRAM with %s: %v", password, err)
		}
	}
	want := strings.Repeat("alice@example.org phone,", 2) + strings.Repeat("alice@example.org laptop,", 2) + strings.Repeat("alice@example.org phone,", 2)
	if got := strings.Join(used, ",") + ","; got != want {
		t.Errorf("used: %s", got)
	}
	v.Apps = v.Apps[1:]
	f.accounts.m["alice@example.org"] = v
	if err := plain("app phone"); err == nil {
		t.Error("a revoked password is taken, from the cache")
	}
	if _, err := scramLogin(t, f.Authenticator, "alice@example.org", "app phone", ""); err == nil {
		t.Error("SCRAM takes a revoked password")
	}
	if err := plain("app laptop"); err != nil {
		t.Error(err)
	}
}

// firstAnswer is what the server says first, without its nonce.
func firstAnswer(t *testing.T, a *Authenticator, username string) string {
	t.Helper()
	x, err := a.Begin(context.Background(), &mail.Client{Addr: netip.MustParseAddr("192.0.2.1")}, ScramSHA256)
	if err != nil {
		t.Fatal(err)
	}
	challenge, _, err := x.Next([]byte("n,,n=" + username + ",r=abc"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(challenge), ",")
	return rest
}

// TestC02ScramNames: names that are no accounts look like those that are: a salt that stays
// the same, of the same form, also after a restart.
func TestC02ScramNames(t *testing.T) {
	f := newRig(t)
	f.Secret = []byte("of this installation")
	ghost := firstAnswer(t, f.Authenticator, "ghost@example.org")
	g := newRig(t)
	g.Secret = []byte("of this installation")
	for name, got := range map[string]string{"again": firstAnswer(t, f.Authenticator, "ghost@example.org"), "in other letters": firstAnswer(t, f.Authenticator, "GHOST@example.org"), "after a restart": firstAnswer(t, g.Authenticator, "ghost@example.org")} {
		if got != ghost {
			t.Errorf("%s: %q, was %q", name, got, ghost)
		}
	}
	if other := firstAnswer(t, f.Authenticator, "phantom@example.org"); other == ghost {
		t.Error("every unknown name has the same salt")
	}
	real := firstAnswer(t, f.Authenticator, "alice@example.org")
	if len(real) != len(ghost) {
		t.Errorf("%q and %q differ in form", real, ghost)
	}
	h := newRig(t)
	h.Secret = []byte("of another")
	if firstAnswer(t, h.Authenticator, "ghost@example.org") == ghost {
		t.Error("the salt does not depend on the secret: everybody can compute it")
	}
}

// Failures count as they do with passwords: the client is locked out, the account is not.
func TestScramLimits(t *testing.T) {
	f := newRig(t)
	for i := range pairFailures {
		if _, err := scramLogin(t, f.Authenticator, "alice@example.org", "wrong", ""); !errors.Is(err, error(errCredentials)) {
			t.Fatalf("failure %d: %v", i+1, err)
		}
	}
	if _, err := scramLogin(t, f.Authenticator, "alice@example.org", "correct", ""); !errors.Is(err, error(errTooMany)) {
		t.Errorf("after %d failures: %v", pairFailures, err)
	}
}

// TestScramSyntax: what is malformed is refused, and ends the exchange.
func TestScramSyntax(t *testing.T) {
	f := newRig(t)
	begin := func() Exchange {
		x, err := f.Begin(context.Background(), &mail.Client{Addr: netip.MustParseAddr("192.0.2.1")}, ScramSHA256)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, first := range []string{"", "n", "n,", "n,,", "n,,n=alice", "n,,n=,r=abc", "n,,r=abc,n=alice", "n,,m=x,n=alice,r=abc", "p=tls-unique,,n=alice,r=abc",
		"x,,n=alice,r=abc", "n,a=,n=alice,r=abc", "n,b=x,n=alice,r=abc", "n,,n=al=ice,r=abc", "n,,n=alice,r=", "n,,n=alice,r=a\x7fb", "n,,n=a\x00b,r=abc",
		"n,,n=" + strings.Repeat("a", 4000) + ",r=abc"} {
		x := begin()
		if _, done, err := x.Next([]byte(first)); done || !errors.Is(err, error(errSyntax)) {
			t.Errorf("%.40q: %v", first, err)
		}
		if _, done, err := x.Next([]byte("n,,n=alice@example.org,r=abc")); done || err == nil {
			t.Errorf("%.40q: the exchange goes on", first)
		}
	}
	b64 := base64.StdEncoding.EncodeToString
	proof := b64(make([]byte, 32))
	for what, final := range map[string]string{
		"no proof": "c=biws,r=%", "another nonce": "c=biws,r=abcdef,p=" + proof, "only ours": "c=biws,r=abc,p=" + proof, "another binding": "c=" + b64([]byte("y,,")) + ",r=%,p=" + proof,
		"a short proof": "c=biws,r=%,p=" + b64([]byte("x")), "a long proof": "c=biws,r=%,p=" + b64(make([]byte, 33)), "no base64": "c=biws,r=%,p=***", "nothing": "", "the wrong order": "r=%,c=biws,p=" + proof,
	} {
		x := begin()
		challenge, _, err := x.Next([]byte("n,,n=alice@example.org,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		nonce := strings.TrimPrefix(strings.Split(string(challenge), ",")[0], "r=")
		if _, done, err := x.Next([]byte(strings.ReplaceAll(final, "%", nonce))); done || !errors.Is(err, error(errSyntax)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	x := begin()
	if challenge, done, err := x.Next(nil); len(challenge) != 0 || challenge == nil || done || err != nil {
		t.Errorf("without an initial response: %q %v %v", challenge, done, err)
	}
}

func TestMechanisms(t *testing.T) {
	f := newRig(t)
	if got := strings.Join(f.Mechanisms(), " "); got != "SCRAM-SHA-256 PLAIN LOGIN" {
		t.Error(got)
	}
	f.PasswordsOnly = true
	if got := strings.Join(f.Mechanisms(), " "); got != "PLAIN LOGIN" {
		t.Error(got)
	}
	for _, m := range []string{ScramSHA256, "SCRAM-SHA-1", "", "plain"} {
		if x, err := f.Begin(context.Background(), &mail.Client{}, m); err == nil {
			t.Errorf("%q begins: %v", m, x)
		}
	}
}

func FuzzScram(f *testing.F) {
	f.Add("n,,n=alice@example.org,r=abc", "c=biws,r=abc,p=AAAA")
	f.Add("y,a=x=2Cy,n=a=3Db,r=abc,ext=1", "c=biws,r=abc,x=y,p=")
	fix := newRig(f)
	f.Fuzz(func(t *testing.T, first, final string) {
		x, err := fix.Begin(context.Background(), &mail.Client{Addr: netip.MustParseAddr("192.0.2.1")}, ScramSHA256)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := x.Next([]byte(first)); err != nil {
			return
		}
		if _, _, err := x.Next([]byte(final)); err == nil {
			t.Errorf("%q %q: somebody without a password is let in", first, final)
		}
	})
}
