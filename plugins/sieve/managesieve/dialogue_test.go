package managesieve

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
)

// capability lists as they are in the three states.
const (
	inClear = `
S: "IMPLEMENTATION" "Test 1.0"
S: "VERSION" "1.0"
S: "SASL" ""
S: "SIEVE" "fileinto enotify"
S: "NOTIFY" "mailto"
S: "MAXREDIRECTS" "4"
S: "LANGUAGE" "en"
S: "UNAUTHENTICATE"
S: "STARTTLS"
`
	underTLS = `
S: "IMPLEMENTATION" "Test 1.0"
S: "VERSION" "1.0"
S: "SASL" "PLAIN LOGIN TEST"
S: "SIEVE" "fileinto enotify"
S: "NOTIFY" "mailto"
S: "MAXREDIRECTS" "4"
S: "LANGUAGE" "en"
S: "UNAUTHENTICATE"
`
	owned = underTLS + `S: "OWNER" "alice@example.org"
`
)

// RFC 5804 §1.7, §2.1, §2.2, §2.3, §2.4, §2.14.1: what there is, in each state.
func TestCapabilities(t *testing.T) {
	serving(t, nil).dial().talk(inClear + `
S: OK "Ready"
C: capability
` + inClear + `
S: OK
C: STARTTLS
S: OK*
TLS
` + underTLS + `
S: OK "Ready"
C: starttls
S: NO*
C: AUTHENTICATE "plain" "` + plain("alice@example.org", "secret") + `"
S: OK*
C: CAPABILITY
` + owned + `
S: OK
C: AUTHENTICATE "PLAIN" "` + plain("bob@example.org", "secret") + `"
S: NO*
C: Unauthenticate
S: OK*
C: CAPABILITY
` + underTLS + `
S: OK
C: LISTSCRIPTS
S: NO*
C: UNAUTHENTICATE
S: NO*
C: AUTHENTICATE "PLAIN" {` + "44+}\nC: " + plain("bob-the-builder@example.org", "secret")[:44] + `
S: NO*
C: AUTHENTICATE "PLAIN" "` + plain("bob@example.org", "secret") + `"
S: OK*
C: Logout
S: OK "Good bye"
END
`)
}

// RFC 5804 §2: what is not for those who have not logged in.
func TestBeforeLogin(t *testing.T) {
	for _, command := range []string{`HAVESPACE "a" 1`, `PUTSCRIPT "a" "keep;"`, `CHECKSCRIPT "keep;"`, `LISTSCRIPTS`, `SETACTIVE ""`, `GETSCRIPT "a"`,
		`DELETESCRIPT "a"`, `RENAMESCRIPT "a" "b"`, `UNAUTHENTICATE`} {
		serving(t, nil).dial().talk("S: ...\nC: " + command + "\nS: NO \"Log in first\"\nC: STARTTLS\nS: OK*\nTLS\nS: ...\nC: " + command + "\nS: NO \"Log in first\"")
	}
}

// RFC 5804 §2.5 to §2.12, with the examples of §2.6 and §2.11.
func TestScripts(t *testing.T) {
	r := serving(t, nil)
	r.dial().talk(`
ALICE
C: LISTSCRIPTS
S: OK*
C: HAVESPACE "first" 2000
S: OK*
C: HAVESPACE "first" 2001
S: NO (QUOTA/MAXSIZE) "2000 bytes are enough"
C: HAVESPACE "first" 4294967295
S: NO (QUOTA/MAXSIZE)*
C: PUTSCRIPT "first" {7+}
C: keep;
C"\r\n"
S: OK "The script is stored"
C: Putscript {6+}
C: second "discard;"
S: OK*
C: putscript "clever\"script" "keep;"
S: OK*
C: PUTSCRIPT "fourth" "keep;"
S: NO (QUOTA/MAXSCRIPTS) "Three scripts are enough"
C: HAVESPACE "fourth" 1
S: NO (QUOTA/MAXSCRIPTS)*
C: PUTSCRIPT "first" "bad"
S: NO {40}
S: line 1: "bad" is bad
S: line 2: so is this
C: PUTSCRIPT "second" "odd"
S: OK (WARNINGS) "line 1: that is odd"
C: PUTSCRIPT "second" ""
S: NO*
C: CHECKSCRIPT "bad"
S: NO {40}
S: line 1: "bad" is bad
S: line 2: so is this
C: CHECKSCRIPT {3+}
C: odd
S: OK (WARNINGS) "line 1: that is odd"
C: CHECKSCRIPT "keep;"
S: OK "The script is good"
C: SETACTIVE "none"
S: NO (NONEXISTENT)*
C: SETACTIVE "first"
S: OK*
C: LISTSCRIPTS
S: "clever\"script"
S: "first" ACTIVE
S: "second"
S: OK*
C: GETSCRIPT "first"
S: {7}
S: keep;
S: *
S: OK*
C: GETSCRIPT "none"
S: NO (NONEXISTENT)*
C: DELETESCRIPT "first"
S: NO (ACTIVE)*
C: DELETESCRIPT "none"
S: NO (NONEXISTENT)*
C: RENAMESCRIPT "first" "second"
S: NO (ALREADYEXISTS)*
C: RENAMESCRIPT "none" "third"
S: NO (NONEXISTENT)*
C: RENAMESCRIPT "second" "Räume und {2+}"
S: OK*
C: SETACTIVE ""
S: OK*
C: SETACTIVE ""
S: OK*
C: DELETESCRIPT "first"
S: OK*
C: LISTSCRIPTS
S: "Räume und {2+}"
S: "clever\"script"
S: OK*
C: GETSCRIPT "trouble"
S: NO (TRYLATER)*
C: PUTSCRIPT "trouble" "keep;"
S: NO (TRYLATER)*
C: NOOP
S: OK "Done"
C: LOGOUT
S: OK*
END
`)
	for _, secret := range []string{"discard", "keep;", "no route to the database\" secret", plain("alice@example.org", "secret")} {
		if strings.Contains(r.log.text(), secret) {
			t.Errorf("the log has %q:\n%s", secret, r.log.text())
		}
	}
}

// RFC 5804 §2.13.
func TestNoop(t *testing.T) {
	serving(t, nil).dial().talk(`
S: ...
C: NOOP
S: OK "Done"
C: NOOP "STARTTLS-SYNC-42"
S: OK (TAG "STARTTLS-SYNC-42") "Done"
C: NOOP {8+}
C"a\"\r\nb\\\x00"
C"c\r\n"
S: OK (TAG {8}
S: a"
C: NOOP "` + strings.Repeat("x", 1024) + `"
S: b\` + "\x00" + `c) "Done"
S: OK (TAG "` + strings.Repeat("x", 1024) + `") "Done"
C: NOOP "` + strings.Repeat("x", 1025) + `"
S: NO "The tag is too long"
C: NOOP "a" "b"
S: NO*
C: NOOP 42
S: NO*
`)
}

// RFC 5804 §1.6: names.
func TestNames(t *testing.T) {
	p := serving(t, nil).dial().talk("ALICE")
	for _, name := range []string{"a\x01b", "a\tb", "a\x7fb", "a\u0085b", "a\u2028b", "a\u2029b", "\xff", "a\xc3", "\uFEFFa", strings.Repeat("x", 513), strings.Repeat("x", 1025)} {
		p.send("PUTSCRIPT \"" + name + "\" \"keep;\"\r\n")
		p.talk("S: NO \"A script's name*")
		p.send("SETACTIVE \"" + name + "\"\r\n")
		p.talk("S: NO \"A script's name*")
	}
	p.talk(`
C: PUTSCRIPT "" "keep;"
S: NO "A script's name*
C: RENAMESCRIPT "a" ""
S: NO "A script's name*
C: GETSCRIPT ""
S: NO "A script's name*
`)
	long := strings.Repeat("𝄞", 128) // 512 octets
	p.talk("C: PUTSCRIPT \"" + long + "\" \"keep;\"\nS: OK*\nC: LISTSCRIPTS\nS: \"" + long + "\"\nS: OK*")
}

// RFC 5804 §2: commands may come all at once.
func TestPipelining(t *testing.T) {
	const n = 500
	p := serving(t, nil).dial().talk("S: ...\nC: STARTTLS\nS: OK*\nTLS\nS: ...")
	p.send("AUTHENTICATE \"PLAIN\" \"" + plain("alice@example.org", "secret") + "\"\r\n" +
		"PUTSCRIPT \"a\" {6+}\r\nLOGOUT\r\nSETACTIVE {1+}\r\na\r\n" + strings.Repeat("GETSCRIPT \"a\"\r\n", n) + "LOGOUT\r\nNOOP\r\n")
	p.talk("S: OK*\nS: OK*\nS: OK*\n" + strings.Repeat("S: {6}\nS: LOGOUT\nS: OK*\n", n) + "S: OK \"Good bye\"\nEND")
}

// Who is disabled while he is logged in has nothing to say any more.
func TestDisabledMeanwhile(t *testing.T) {
	var disabled atomic.Bool
	r := serving(t, func(o *Options) { o.Logins = users{disabled: &disabled} })
	p := r.dial().talk("S: ...\nC: STARTTLS\nS: OK*\nTLS\nS: ...\nC: AUTHENTICATE \"PLAIN\" \"" + plain("alice@example.org", "secret") + "\"\nS: OK*\nC: PUTSCRIPT \"a\" \"keep;\"\nS: OK*")
	disabled.Store(true)
	p.talk("C: NOOP\nS: OK*\nC: PUTSCRIPT \"b\" \"redirect;\"\nS: BYE \"The account cannot be used any more\"\nEND")
	if _, stored := r.scripts.scripts["b"]; stored {
		t.Error("the script is stored")
	}
}

// RFC 5804 §2.1.
func TestAuthenticate(t *testing.T) {
	secure := "S: ...\nC: STARTTLS\nS: OK*\nTLS\nS: ...\n"
	for name, dialogue := range map[string]string{
		"in the clear":      "S: ...\nC: AUTHENTICATE \"PLAIN\" \"" + plain("alice@example.org", "secret") + "\"\nS: NO (ENCRYPT-NEEDED)*",
		"empty challenge":   secure + "C: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC: \"" + plain("alice@example.org", "secret") + "\"\nS: OK*",
		"literals":          secure + "C: AUTHENTICATE {5+}\nC: LOGIN\nS: \"" + b64("Username:") + "\"\nC: {24+}\nC: " + b64("alice@example.org") + "\nS: \"" + b64("Password:") + "\"\nC: \"" + b64("secret") + "\"\nS: OK*",
		"last words":        secure + "C: AUTHENTICATE \"TEST\" \"\"\nS: {2668}\nS: Y2hhbGxlbmdl*\nC: \"\"\nS: \"" + b64("last words") + "\"\nC: {0+}\nC: \nS: OK*",
		"no initial":        secure + "C: AUTHENTICATE \"LOGIN\" \"" + b64("alice@example.org") + "\"\nS: NO*",
		"cancelled":         secure + "C: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC: \"*\"\nS: NO \"You have cancelled it\"\nC: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC: {1+}\nC: *\nS: NO*\nC: NOOP\nS: OK*",
		"unknown mechanism": secure + "C: AUTHENTICATE \"SCRAM-SHA-1\"\nS: NO \"The mechanism is not supported\"",
		"no base64":         secure + "C: AUTHENTICATE \"PLAIN\" \"a=b\"\nS: NO*\nC: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC: \"%\"\nS: NO*",
		"no string":         secure + "C: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC: " + plain("alice@example.org", "secret") + "\nS: NO*\nC: NOOP\nS: OK*",
		"empty line":        secure + "C: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC: \nS: NO*\nC: NOOP\nS: OK*",
		"two strings":       secure + "C: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC: \"\" \"\"\nS: NO*\nC: NOOP\nS: OK*",
		"malformed":         secure + "C: AUTHENTICATE \"PLAIN\" \"" + b64("x") + "\"\nS: NO \"Malformed authentication response\"",
		"empty initial":     secure + "C: AUTHENTICATE \"PLAIN\" \"\"\nS: NO \"Malformed authentication response\"",
		"no mechanism":      secure + "C: AUTHENTICATE\nS: NO*\nC: AUTHENTICATE PLAIN\nS: NO*\nC: AUTHENTICATE \"PLAIN\" \"\" \"\"\nS: NO*",
		"try later":         secure + "C: AUTHENTICATE \"PLAIN\" \"" + plain("later", "x") + "\"\nS: NO (TRYLATER)*",
		"too many by host":  secure + "C: AUTHENTICATE \"PLAIN\" \"" + plain("many", "x") + "\"\nS: BYE (TRYLATER) \"Too many failed log-ins, try again later\"\nEND",
		"three":             secure + strings.Repeat("C: AUTHENTICATE \"PLAIN\" \""+plain("alice@example.org", "x")+"\"\nS: NO \"Authentication credentials invalid\"\n", 2) + "C: AUTHENTICATE \"PLAIN\" \"" + plain("alice@example.org", "x") + "\"\nS: BYE \"Too many failed log-ins\"\nEND",
		"two":               secure + strings.Repeat("C: AUTHENTICATE \"PLAIN\" \""+plain("alice@example.org", "x")+"\"\nS: NO \"Authentication credentials invalid\"\n", 2) + "C: AUTHENTICATE \"PLAIN\" \"" + plain("alice@example.org", "secret") + "\"\nS: OK*",
		"gone":              secure + "C: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC\"\\\"AAAA\"",
	} {
		t.Run(name, func(t *testing.T) {
			r := serving(t, nil)
			p := r.dial().talk(dialogue)
			p.conn.Close()
			r.end()
			if strings.Contains(r.log.text(), "secret") {
				t.Errorf("the log has\n%s", r.log.text())
			}
		})
	}
}

// Without a certificate there is nothing to be had.
func TestNoCertificate(t *testing.T) {
	serving(t, func(o *Options) {
		o.TLS = func(context.Context) (*tls.Config, error) { return nil, errors.New("not yet") }
	}).dial().talk("S: BYE (TRYLATER)*\nEND")
}

// Without log-ins nobody is left to believe that there are some.
func TestNoLogins(t *testing.T) {
	serving(t, func(o *Options) { o.Logins = users{none: true} }).dial().talk("S: ...\nC: STARTTLS\nS: OK*\nTLS\nS: BYE (TRYLATER)*\nEND")
}
