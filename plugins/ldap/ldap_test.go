package ldap

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

func TestResolve(t *testing.T) {
	s := peertest.StartSlapd(t, people)
	p := configured(t, settings(quote(s.LDAP)))
	for address, want := range map[string]string{
		"carol@corp.example":          "carol@corp.example",
		"CAROL@corp.example":          "carol@corp.example",
		"c.smith@corp.example":        "carol@corp.example",
		"carol+tag@corp.example":      "carol@corp.example",
		"office+a+b@corp.example":     "carol@corp.example",
		"dave@corp.example":           "d.jones@corp.example", // of several, the first
		"gone@corp.example":           "gone@elsewhere.example",
		"both@corp.example":           "both@corp.example both@elsewhere.example",
		"outside@corp.example":        "dave@corp.example x@elsewhere.example",
		"staff@corp.example":          "carol@corp.example d.jones@corp.example dave@corp.example x@elsewhere.example",
		"empty@corp.example":          "",
		"nobody@corp.example":         "",
		"carol@other.example":         "",
		"uid@corp.example":            "",
		`"*"@corp.example`:            "",
		`"*)(uid=*"@corp.example`:     "",
		`"x)(|(uid=*)"@corp.example`:  "",
		`"ca*"@corp.example`:          "",
		`"\\2a"@corp.example`:         "",
		"+tag@corp.example":           "",
		"kärol@corp.example":          "",
		`"carol@corp.example"@a.test`: "",
	} {
		if got := resolve(t, p, address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	s := peertest.StartSlapd(t, people)
	p := configured(t, settings(quote(s.LDAPI)))
	sdktest.Directory(t, p, mail.MustPath("carol@corp.example"), "secret of carol")
	for _, c := range []struct{ login, password, want string }{
		{"carol@corp.example", "secret of carol", "carol@corp.example"},
		{"Carol@corp.example", "secret of carol", "carol@corp.example"},
		{"dave@corp.example", "secret of dave", "d.jones@corp.example"},
		{"carol@corp.example", "secret of dave", ""},
		{"carol@corp.example", "", ""}, // nobody's bind would succeed
		{"carol@corp.example", "\x00", ""},
		{"nopass@corp.example", "", ""},
		{"nopass@corp.example", "x", ""},
		{"nobody@corp.example", "secret of carol", ""},
		{"c.smith@corp.example", "secret of carol", ""}, // an alias does not log in
		{"carol+tag@corp.example", "secret of carol", ""},
	} {
		got, err := p.CheckPassword(context.Background(), mail.MustPath(c.login), c.password)
		if err != nil {
			t.Errorf("%s: %v", c.login, err)
		}
		if got != (mail.Path{}) && got.String() != c.want || got == (mail.Path{}) && c.want != "" {
			t.Errorf("%s with %q: %q, want %q", c.login, c.password, got, c.want)
		}
	}
	byUID := configured(t, settings(quote(s.LDAPI))+`login_filter = "(&(uid=%u)(mail=*@%d))"`+"\n")
	if got, err := byUID.CheckPassword(context.Background(), mail.MustPath("carol@corp.example"), "secret of carol"); err != nil || got.Local != "carol" {
		t.Errorf("by uid: %v, %v", got, err)
	}
	ambiguous := configured(t, settings(quote(s.LDAPI))+`login_filter = "(|(uid=dave)(mail=%a))"`+"\n")
	if got, err := ambiguous.CheckPassword(context.Background(), mail.MustPath("carol@corp.example"), "secret of carol"); err == nil || got != (mail.Path{}) {
		t.Errorf("a login of two: %v, %v", got, err)
	}
}

// TestC04Injection: what has a meaning in filters has none in an address.
func TestC04Injection(t *testing.T) {
	s := peertest.StartSlapd(t, people)
	for _, more := range []string{"", `filter = "(|(uid=%u)(mail=%a))"` + "\n" + `login_filter = "(|(uid=%u)(mail=%a))"` + "\n"} {
		p := configured(t, settings(quote(s.LDAPI))+more)
		for _, local := range []string{"*", "*)(uid=*", "*)(uid=carol", "carol)(|(uid=*)", "c*", "carol\x00", `\63arol`, `\2a`, "carol)(objectClass=*", "' or 1=1", "../carol",
			"carol,ou=people,dc=corp,dc=example", "(&)", "carol\r\n", "*)(|(mail=*", "\xffcarol", "carol@corp.example)(|(uid=*)"} {
			address := mail.Path{Local: local, Domain: mail.MustDomain("corp.example")}
			if targets, err := p.Resolve(context.Background(), address); err != nil || len(targets) > 0 {
				t.Errorf("%q is %v, %v", local, targets, err)
			}
			for _, password := range []string{"secret of carol", "", "*"} {
				if account, err := p.CheckPassword(context.Background(), address, password); err != nil || account != (mail.Path{}) {
					t.Errorf("%q logs in as %v, %v", local, account, err)
				}
			}
		}
	}
}

// TestReferrals: they are not followed, and where all is elsewhere that is no answer.
func TestReferrals(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	followed := make(chan bool, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
			followed <- true
		}
	}()
	s := peertest.StartSlapd(t, people+fmt.Sprintf("\ndn: ou=away,dc=corp,dc=example\nobjectClass: referral\nobjectClass: extensibleObject\nou: away\nref: ldap://%s/ou=away,dc=corp,dc=example\n", l.Addr()))
	if got := resolve(t, configured(t, settings(quote(s.LDAPI))), "carol@corp.example"); got != "carol@corp.example" {
		t.Errorf("beside a referral: %q", got)
	}
	away := configured(t, strings.Replace(settings(quote(s.LDAPI)), `base = "`, `base = "ou=away,`, 1))
	if targets, err := away.Resolve(context.Background(), mail.MustPath("carol@corp.example")); err == nil {
		t.Errorf("at a referral: %v", targets)
	}
	select {
	case <-followed:
		t.Error("a referral was followed")
	default:
	}
}

// TestOtherName: a certificate of somebody else is none.
func TestOtherName(t *testing.T) {
	s := peertest.StartSlapd(t, people)
	roots, err := readCAs(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	set := Defaults()
	set.BindDN = peertest.SlapdReader
	request := goldap.NewSearchRequest("dc=corp,dc=example", goldap.ScopeBaseObject, 0, 1, 5, false, "(objectClass=*)", nil, nil)
	for host, ok := range map[string]bool{"localhost": true, "ldap.corp.example": false} {
		for _, secure := range []bool{true, false} {
			url := map[bool]string{true: s.LDAPS, false: s.LDAP}[secure]
			set.StartTLS = !secure
			_, address, _ := strings.Cut(url, "://")
			srv := newServer(place{network: "tcp", address: address, host: host, tls: secure}, &set, roots, peertest.SlapdPassword)
			if _, err := srv.search(t.Context(), request); (err == nil) != ok {
				t.Errorf("%s as %s: %v", url, host, err)
			}
		}
	}
}

// TestTLS: with and without the right authority.
func TestTLS(t *testing.T) {
	s := peertest.StartSlapd(t, people)
	ca := fmt.Sprintf("ca_file = %q\n", s.CA)
	for name, c := range map[string]struct {
		settings string
		fails    bool
	}{
		"ldaps":                       {settings(quote(s.LDAPS)) + ca, false},
		"starttls":                    {settings(quote(s.LDAP)) + ca + "starttls = true\n", false},
		"ldaps, unknown authority":    {settings(quote(s.LDAPS)), true},
		"starttls, unknown authority": {settings(quote(s.LDAP)) + "starttls = true\n", true},
		"ldaps to a port without":     {settings(quote(strings.Replace(s.LDAP, "ldap:", "ldaps:", 1))) + ca, true},
	} {
		p := configured(t, c.settings)
		targets, err := p.Resolve(context.Background(), mail.MustPath("carol@corp.example"))
		if (err != nil) != c.fails || !c.fails && len(targets) != 1 {
			t.Errorf("%s: %v, %v", name, targets, err)
		}
		account, err := p.CheckPassword(context.Background(), mail.MustPath("carol@corp.example"), "secret of carol")
		if (err != nil) != c.fails || c.fails == (account != mail.Path{}) {
			t.Errorf("%s: %v, %v", name, account, err)
		}
	}
}

// TestFailures: an error, never an answer; also of a server that never says a word.
func TestFailures(t *testing.T) {
	s := peertest.StartSlapd(t, people)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, set := range map[string]string{
		"nobody there":      settings(`"ldap://127.0.0.1:1"`),
		"silent":            settings(quote("ldap://"+silent.Addr().String())) + "timeout = \"300ms\"\n",
		"silent, starttls":  settings(quote("ldap://"+silent.Addr().String())) + "starttls = true\ntimeout = \"300ms\"\n",
		"silent, ldaps":     settings(quote("ldaps://"+silent.Addr().String())) + "timeout = \"300ms\"\n",
		"wrong password":    strings.Replace(settings(quote(s.LDAP)), peertest.SlapdReader, "uid=carol,ou=people,dc=corp,dc=example", 1),
		"no such base":      strings.Replace(settings(quote(s.LDAP)), `"dc=corp,dc=example"`, `"ou=none,dc=corp,dc=example"`, 1),
		"somebody else's":   strings.Replace(settings(quote(s.LDAP)), `"dc=corp,dc=example"`, `"dc=other,dc=example"`, 1),
		"filter finds many": settings(quote(s.LDAP)) + `filter = "(|(objectClass=*)(mail=%a))"` + "\n" + `login_filter = "(|(objectClass=*)(mail=%a))"` + "\n",
	} {
		p := configured(t, set)
		if targets, err := p.Resolve(context.Background(), mail.MustPath("carol@corp.example")); err == nil && name != "filter finds many" {
			t.Errorf("%s: %v and no error", name, targets)
		}
		if account, err := p.CheckPassword(context.Background(), mail.MustPath("carol@corp.example"), "secret of carol"); err == nil || account != (mail.Path{}) {
			t.Errorf("%s: %v, %v", name, account, err)
		} else if strings.Contains(err.Error(), peertest.SlapdPassword) || strings.Contains(err.Error(), "secret of carol") {
			t.Errorf("%s: the error tells a password: %v", name, err)
		}
	}
}

// TestServerComesBack: with the connections of before, a server that restarts is asked again; one
// that hangs is not waited for until it goes on, and the next one is asked.
func TestServerComesBack(t *testing.T) {
	s, second := peertest.StartSlapd(t, people), peertest.StartSlapd(t, people)
	p := configured(t, settings(quote(s.LDAP))+"timeout = \"5s\"\n")
	both := configured(t, settings(fmt.Sprintf("[%q, %q]", s.LDAP, second.LDAPI))+"timeout = \"5s\"\n")
	ask := func(p *Plugin) error {
		t.Helper()
		targets, err := p.Resolve(context.Background(), mail.MustPath("carol@corp.example"))
		if err == nil && len(targets) != 1 {
			t.Fatalf("%v", targets)
		}
		account, err2 := p.CheckPassword(context.Background(), mail.MustPath("carol@corp.example"), "secret of carol")
		if err2 == nil && account.Local != "carol" || (err == nil) != (err2 == nil) {
			t.Fatalf("%v, %v", account, err2)
		}
		return err
	}
	for range 2 {
		if err := ask(p); err != nil {
			t.Fatal(err)
		}
		if err := ask(both); err != nil {
			t.Fatal(err)
		}
		s.Stop()
		if ask(p) == nil {
			t.Fatal("a server that is not there answers")
		}
		if err := ask(both); err != nil {
			t.Errorf("with a second server: %v", err)
		}
		s.Restart()
		if err := ask(p); err != nil {
			t.Fatalf("after a restart: %v", err)
		}
		s.Freeze()
		for err := error(nil); err == nil; { // the signal takes a moment
			_, err = p.Resolve(context.Background(), mail.MustPath("carol@corp.example"))
		}
		if account, err := p.CheckPassword(context.Background(), mail.MustPath("carol@corp.example"), "secret of carol"); err == nil {
			t.Fatalf("a server that hangs answers %v", account)
		}
		s.Thaw()
		if err := ask(p); err != nil {
			t.Fatalf("after it hung: %v", err)
		}
	}
}

// TestConcurrent: many ask at once, over few connections.
func TestConcurrent(t *testing.T) {
	s := peertest.StartSlapd(t, people)
	p := configured(t, settings(quote(s.LDAPI))+"connections = 3\n")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				if targets, err := p.Resolve(context.Background(), mail.MustPath("staff@corp.example")); err != nil || len(targets) != 4 {
					t.Errorf("%v, %v", targets, err)
				}
				if a, err := p.CheckPassword(context.Background(), mail.MustPath("carol@corp.example"), "secret of dave"); err != nil || a != (mail.Path{}) {
					t.Errorf("%v, %v", a, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(p.servers[s.LDAPI].searches.idle); n > 3 {
		t.Errorf("%d connections", n)
	}
}

// TestLargeGroups: what is more than a directory may say is an error, and not a part of it.
func TestLargeGroups(t *testing.T) {
	var b strings.Builder
	group := func(name string, n int) {
		fmt.Fprintf(&b, "\ndn: cn=%s,dc=corp,dc=example\nobjectClass: nisMailAlias\nobjectClass: mailPerson\ncn: %s\nmail: %s@corp.example\n", name, name, name)
		for i := range n {
			fmt.Fprintf(&b, "rfc822MailMember: m%d@elsewhere.example\n", i)
		}
	}
	for _, n := range []int{999, 1000, 1001} {
		group(fmt.Sprintf("g%d", n), n)
	}
	for i := range 8 { // each in the one before
		fmt.Fprintf(&b, "\ndn: cn=deep%d,dc=corp,dc=example\nobjectClass: groupOfNames\nobjectClass: mailPerson\ncn: deep%d\nmail: deep%d@corp.example\nmember: cn=deep%d,dc=corp,dc=example\n", i, i, i, i+1)
	}
	fmt.Fprintf(&b, "\ndn: cn=deep8,dc=corp,dc=example\nobjectClass: nisMailAlias\nobjectClass: mailPerson\ncn: deep8\nrfc822MailMember: x@elsewhere.example\n")
	s := peertest.StartSlapd(t, b.String())
	p := configured(t, settings(quote(s.LDAPI)))
	for name, want := range map[string]int{"g999": 999, "g1000": 1000, "g1001": -1, "deep3": 1, "deep2": -1} {
		targets, err := p.Resolve(context.Background(), mail.Path{Local: name, Domain: mail.MustDomain("corp.example")})
		if (err != nil) != (want < 0) || want >= 0 && len(targets) != want {
			t.Errorf("%s: %d targets, %v", name, len(targets), err)
		}
	}
}

// TestHostileServer: a server that says nonsense is an error, in time and in bounded memory.
func TestHostileServer(t *testing.T) {
	for name, answer := range map[string]string{
		"rubbish":   "HTTP/1.1 200 OK\r\n\r\n",
		"too large": "\x30\x84\x7f\xff\xff\xff\x02\x01\x01",
		"closes":    "",
		"short":     "\x30\x0c\x02\x01\x01\x65",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					c.Read(make([]byte, 1000))
					io.WriteString(c, answer)
					if answer != "" {
						io.Copy(io.Discard, c)
					}
					c.Close()
				}()
			}
		}()
		p := configured(t, settings(quote("ldap://"+l.Addr().String()))+"timeout = \"500ms\"\n")
		if targets, err := p.Resolve(context.Background(), mail.MustPath("carol@corp.example")); err == nil {
			t.Errorf("%s: %v", name, targets)
		}
		l.Close()
	}
}

func TestSettings(t *testing.T) {
	base := "base = \"dc=corp,dc=example\"\n"
	for set, want := range map[string]string{
		"":                                     "url: is missing",
		base + `url = "http://x"`:              "none of ldap",
		base + `url = "ldap://ldap.example"`:   "in the clear",
		base + `url = "ldap://192.0.2.1:389"`:  "in the clear",
		base + `url = "ldap://u:p@127.0.0.1"`:  "more than a server",
		base + `url = "ldap://127.0.0.1/dc=x"`: "has a path",
		base + `url = "ldapi://"`:              "names no socket",
		`url = "ldap://127.0.0.1"`:             "base",
		base + `url = "ldap://127.0.0.1"` + "\nbind_dn = \"cn=x\"":                                 "password_file",
		base + `url = "ldap://127.0.0.1"` + "\nbind_dn = \"nonsense\"\npassword_file = \"reader\"": "not the name of an entry",
		base + `url = "ldap://127.0.0.1"` + "\nfilter = \"(mail=x)\"":                              "asks for no address",
		base + `url = "ldap://127.0.0.1"` + "\nfilter = \"(mail=%d)\"":                             "asks for no address",
		base + `url = "ldap://127.0.0.1"` + "\nfilter = \"(mail=%a\"":                              "not a filter",
		base + `url = "ldap://127.0.0.1"` + "\nfilter = \"(mail=%s)\"":                             "not known",
		base + `url = "ldap://127.0.0.1"` + "\nlogin_filter = \"(mail=%\"":                         "ends in %",
		base + `url = "ldap://127.0.0.1"` + "\nca_file = \"/nonexistent\"":                         "ca_file",
		base + `url = "ldap://127.0.0.1"` + "\ntimeout = \"1ms\"":                                  "timeout",
		base + `url = "ldap://127.0.0.1"` + "\nconnections = 0":                                    "connections",
		base + `url = "ldap://127.0.0.1"` + "\ndelimiter = \"--\"":                                 "delimiter",
		base + `url = "ldap://127.0.0.1"` + "\nnonsense = 1":                                       "nonsense",
	} {
		err := New().Configure(context.Background(), sdk.Config{Settings: []byte(set), DataDir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, want %q", set, err, want)
		}
	}
	for _, set := range []string{
		`url = ["ldap://127.0.0.1", "ldaps://ldap.example", "ldapi:///run/slapd/ldapi", "ldap://[::1]:10389/"]`,
		"url = \"ldap://ldap.example\"\nstarttls = true", "url = \"ldap://ldap.example\"\ncleartext = true",
	} {
		if err := New().Configure(context.Background(), sdk.Config{Settings: []byte(base + set)}); err != nil {
			t.Errorf("%s\n%v", set, err)
		}
	}
}

// FuzzFilter: whatever the address is, the filter is the same but for values.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"carol", "*)(uid=*", `\2a`, "(", ")", "a\x00b", "\xff", "ä", "&(|!"} {
		f.Add(s)
	}
	parsed, err := parseFilter("(&(mail=%a)(uid=%u)(!(x=%d)))")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, local string) {
		got := parsed.about(mail.Path{Local: local, Domain: mail.MustDomain("corp.example")})
		if strings.Count(got, "(") != 5 || strings.Count(got, ")") != 5 || strings.ContainsAny(got, "*\x00") {
			t.Errorf("%q", got)
		}
	})
}
