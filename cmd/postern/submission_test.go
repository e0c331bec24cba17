package main_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/mail"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// withSubmission is basics with a submission listener, the second one, and a domain of
// maildirs.
const withSubmission = basics + `
[[listener]]
address = "127.0.0.1:0"
role = "submission"
[[domain]]
name = "example.org"
deliver = "maildir"
`

// account adds one with the password "secret of " and its local part.
func (g *gateway) account(address string) {
	g.t.Helper()
	local, _, _ := strings.Cut(address, "@")
	if out, code := postern(g.t, "secret of "+local+"\n", "account", "add", address, "--password-stdin", "--config", g.file); code != 0 {
		g.t.Fatalf("account add: exit code %d\n%s", code, out)
	}
}

// maildir is where the plugin keeps a recipient's mail.
func (g *gateway) maildir(user string) string {
	local, domain, _ := strings.Cut(user, "@")
	return filepath.Join(g.dir, "data", "mail", domain, local)
}

// submission starts a gateway with accounts for alice and bob.
func submission(t testing.TB, more string) *gateway {
	t.Helper()
	g := start(t, withSubmission+more)
	g.account("alice@example.org")
	g.account("bob@example.org")
	return g
}

func login(mechanism, user, password string) []string {
	return []string{"--tls", "--auth", mechanism, "--auth-user", user, "--auth-password", password}
}

// H-07, RFC 6409 §8: what a user sends through STARTTLS with each mechanism arrives in the
// Maildir: the envelope in fields, Bcc gone, Date and Message-ID there, all else as it was.
func TestH07SubmissionIntoMaildir(t *testing.T) {
	t.Parallel()
	g := submission(t, "")
	bare := "From: alice@example.org\r\nTo: bob@example.org\r\nBcc: secret@example.org,\r\n\tother@example.org\r\nSubject: K\xc3\xa4se  \r\n\r\n.body\r\n\r\n"
	for i, mechanism := range []string{"PLAIN", "LOGIN"} {
		out, _ := swaksOK(t, g.addr[1], append(login(mechanism, "alice@example.org", "secret of alice"),
			"--from", "alice@example.org", "--to", "bob@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, bare))...)
		if !strings.Contains(out, " ~> AUTH "+mechanism) {
			t.Fatalf("swaks did not use %s inside TLS:\n%s", mechanism, out)
		}
		m := maildirFiles(t, g.maildir("bob@example.org"), i+1)[i]
		head := "Return-Path: <alice@example.org>\r\nDelivered-To: bob@example.org\r\nReceived: from client.example.net ([127.0.0.1])\r\n\tby mx.example.org (Postern) with ESMTPSA (TLS1.3 "
		if !strings.HasPrefix(string(m), head) {
			t.Errorf("begins with\n%.400q, want\n%q", m, head)
		}
		rest := m[ourReceived.FindIndex(m)[1]:]
		added := regexp.MustCompile(`^Message-ID: <[0-9a-f]{24}@mx\.example\.org>\r\nDate: ([^\r\n]+)\r\n`).FindSubmatch(rest)
		if added == nil {
			t.Fatalf("no Message-ID and Date in\n%s", m)
		}
		if _, err := mail.ParseDate(string(added[1])); err != nil {
			t.Errorf("%v", err)
		}
		if want := regexp.MustCompile(`Bcc:[^\n]*\n\t[^\n]*\n`).ReplaceAllString(bare, ""); string(rest[len(added[0]):]) != want {
			t.Errorf("got %q\nwant %q", rest[len(added[0]):], want)
		}
	}
}

// What is there already is left as it is, and mail that was not submitted gets nothing but
// Received: of H-07 and RFC 6409 only submissions are concerned.
func TestSubmissionLeavesTheRest(t *testing.T) {
	t.Parallel()
	g := submission(t, "")
	full := "Message-Id: <own@example.org>\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\nFrom: alice@example.org\r\nSubject: x\r\n\r\nbody\r\n"
	swaksOK(t, g.addr[1], append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "alice@example.org",
		"--to", "bob@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, full))...)
	untouched(t, maildirFiles(t, g.maildir("bob@example.org"), 1)[0], []byte(full))
	incoming := "From: x@example.net\r\nBcc: y@example.net\r\n\r\nbody\r\n"
	swaksOK(t, g.addr[0], "--from", "x@example.net", "--to", "alice@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, incoming))
	untouched(t, maildirFiles(t, g.maildir("alice@example.org"), 1)[0], []byte(incoming))
}

// Nobody gets in without a password, and nobody is someone else.
func TestA25SubmissionRefuses(t *testing.T) {
	t.Parallel()
	g := submission(t, "")
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"wrong password", append(login("PLAIN", "alice@example.org", "secret of bob"), "--from", "alice@example.org"), "535 5.7.8"},
		{"wrong password, LOGIN", append(login("LOGIN", "alice@example.org", "Secret of alice"), "--from", "alice@example.org"), "535 5.7.8"},
		{"unknown user", append(login("PLAIN", "nobody@example.org", "secret of nobody"), "--from", "alice@example.org"), "535 5.7.8"},
		{"no log-in", []string{"--tls", "--from", "alice@example.org"}, "530 5.7.0"},
		{"no TLS", []string{"--from", "alice@example.org"}, "530 5.7.0"},
		{"another's address", append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "bob@example.org"), "553 5.7.1"},
		{"another author", append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "alice@example.org", "--header", "From: Bob <bob@example.org>"), "550 5.7.1"},
		{"another author of a receipt", append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "<>", "--header", "From: bob@example.org"), "550 5.7.1"},
		{"a stranger's address", append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "alice@example.net"), "553 5.7.1"},
	} {
		out, code := swaks(t, g.addr[1], append(tc.args, "--to", "bob@example.org")...)
		if code == 0 || !regexp.MustCompile(`(?m)^<[*~]\* `+regexp.QuoteMeta(tc.want)+" ").MatchString(out) {
			t.Errorf("%s: exit code %d, want a refusal with %s in\n%s", tc.name, code, tc.want, out)
		}
	}
	if log := g.log.tail(1000); strings.Contains(log, "secret of") || strings.Contains(log, base64.StdEncoding.EncodeToString([]byte("secret of bob"))) {
		t.Error("a password is in the log")
	}
	// Her own address with a tag is hers.
	swaksOK(t, g.addr[1], append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "alice+tag@example.org", "--to", "bob@example.org")...)
	maildirFiles(t, g.maildir("bob@example.org"), 1)
}

// AUTH is neither offered nor accepted before TLS, and is offered inside it.
func TestAuthOnlyInsideTLS(t *testing.T) {
	t.Parallel()
	g := submission(t, "")
	c := dial(t, g.addr[1])
	offer := c.cmd(250, "EHLO client.example.net")
	if strings.Contains(offer, "AUTH") || !strings.Contains(offer, "STARTTLS") {
		t.Errorf("before TLS: %q", offer)
	}
	c.send("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00alice@example.org\x00secret of alice")) + "\r\n")
	if code, text, err := c.reply(); err != nil || code != 538 && code != 530 && code != 502 && code != 503 {
		t.Errorf("AUTH before TLS: %d %s %v", code, text, err)
	}
	c.send("MAIL FROM:<alice@example.org>\r\n")
	if code, text, err := c.reply(); err != nil || code != 530 {
		t.Errorf("MAIL after AUTH before TLS: %d %s %v", code, text, err)
	}
	out, _ := swaks(t, g.addr[1], "--tls", "--quit-after", "HELO")
	if !regexp.MustCompile(`(?m)^<~  250[- ]AUTH .*\bPLAIN\b`).MatchString(out) {
		t.Errorf("not offered inside TLS:\n%s", out)
	}
}

// A report on mail of a local user comes back into the user's Maildir, with the null
// reverse-path, when a real Postfix refuses a recipient.
func TestL06ReportIntoMaildir(t *testing.T) {
	t.Parallel()
	p := virtualPostfix(t, "elsewhere.test", []string{"bob"}, "")
	p.start(t, "")
	g := submission(t, fmt.Sprintf("[smarthost]\naddress = %q\n", p.addr))
	message := "From: alice@example.org\r\nSubject: for two\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\nMessage-Id: <two@example.org>\r\n\r\nthe body stays at home\r\n"
	swaksOK(t, g.addr[1], append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "alice@example.org",
		"--to", "bob@elsewhere.test,nobody@elsewhere.test,nowhere@elsewhere.test", "--no-data-fixup", "--data", "@"+wireFile(t, message))...)
	untouched(t, maildirFiles(t, p.mailbox("bob"), 1)[0], []byte(message))
	m := maildirFiles(t, g.maildir("alice@example.org"), 1)[0]
	if !bytes.HasPrefix(m, []byte("Return-Path: <>\r\nDelivered-To: alice@example.org\r\n")) {
		t.Errorf("begins with %.200q", m)
	}
	n := parseReportText(t, m)
	if n.kind != "delivery-status" || len(n.recipients) != 2 { // L-07: one report
		t.Fatalf("report %s on %v", n.kind, n.recipients)
	}
	for i, to := range []string{"nobody", "nowhere"} {
		r := n.recipients[i]
		if r.Get("Final-Recipient") != "rfc822; "+to+"@elsewhere.test" || r.Get("Action") != "failed" || r.Get("Status") != "5.1.1" ||
			r.Get("Remote-Mta") != "dns; [127.0.0.1]" || !strings.HasPrefix(r.Get("Diagnostic-Code"), "smtp; 550 5.1.1 ") {
			t.Errorf("fields: %v", r)
		}
		if !strings.Contains(n.text, to+"@elsewhere.test") {
			t.Errorf("%s is not in the text:\n%s", to, n.text)
		}
	}
	if n.header.Get("In-Reply-To") != "<two@example.org>" {
		t.Errorf("In-Reply-To: %q", n.header.Get("In-Reply-To"))
	}
	if !strings.Contains(n.original, "Subject: for two\r\n") || strings.Contains(n.original, "stays at home") {
		t.Errorf("the original is returned as %q", n.original)
	}
}

// Nothing that a client says of a maildir's fields reaches it (H-08).
func TestH08ForgedEnvelopeFields(t *testing.T) {
	t.Parallel()
	g := submission(t, "")
	forged := "Return-Path: <root@example.org>\r\nDelivered-To: alice@example.org\r\nFrom: x@example.net\r\n\r\nbody\r\n"
	swaksOK(t, g.addr[0], "--from", "x@example.net", "--to", "bob@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, forged))
	m := string(maildirFiles(t, g.maildir("bob@example.org"), 1)[0])
	if n := strings.Count(m, "Return-Path:"); n != 1 || !strings.HasPrefix(m, "Return-Path: <x@example.net>\r\nDelivered-To: bob@example.org\r\n") {
		t.Errorf("%d fields Return-Path in\n%s", n, m)
	}
}

// What an admin does to an account is in force at once in the running gateway, whatever it
// remembers of earlier log-ins.
func TestAccountChangesAtOnce(t *testing.T) {
	t.Parallel()
	g := submission(t, "")
	try := func(password string) bool {
		t.Helper()
		_, code := swaks(t, g.addr[1], append(login("PLAIN", "alice@example.org", password), "--quit-after", "AUTH")...)
		return code == 0
	}
	for range 2 { // the second one is remembered
		if !try("secret of alice") {
			t.Fatal("cannot log in")
		}
	}
	if out, code := postern(t, "another secret\n", "account", "passwd", "alice@example.org", "--password-stdin", "--config", g.file); code != 0 {
		t.Fatalf("passwd: %s", out)
	}
	if try("secret of alice") {
		t.Error("the old password still works")
	}
	if !try("another secret") {
		t.Error("the new password does not work")
	}
	g.must("account", "remove", "alice@example.org")
	if try("another secret") {
		t.Error("a removed account can log in")
	}
	if out, code := swaks(t, g.addr[0], "--from", "x@example.net", "--to", "alice@example.org", "--quit-after", "RCPT"); code == 0 || !strings.Contains(out, "550 5.1.1") {
		t.Errorf("mail for a removed account: exit code %d\n%s", code, out)
	}
}
