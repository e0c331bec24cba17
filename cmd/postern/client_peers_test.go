package main_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// Real programs as the clients: Postfix, Dovecot and swaks talk to our listeners.

// certified are the [tls] of a gateway with a certificate for localhost by ca.
func certified(t testing.TB, ca *smtptest.CA) string {
	t.Helper()
	cert, key := pems(t, ca.Issue(t, nil, nil, "localhost"))
	return fmt.Sprintf("[tls]\ncertificate = %q\nkey = %q\n", cert, key)
}

// Postfix as a user: it logs in to the submission listener through STARTTLS with a verified
// certificate, pipelines, and sends several messages over one connection. They are in the
// Maildir to the byte; what we refuse at RCPT, Postfix returns to its sender.
func TestPostfixSubmits(t *testing.T) {
	t.Parallel()
	ca := smtptest.NewCA(t)
	g := submission(t, certified(t, ca))
	p := virtualPostfix(t, "example.net", []string{"nobody"}, fmt.Sprintf(`relayhost = [localhost]:%s
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = localhost
smtp_tls_CAfile = %s
smtp_tls_loglevel = 1
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{[localhost]:%[1]s = alice@example.org:secret of alice}}
smtp_sasl_security_options = noanonymous
smtp_connection_cache_on_demand = no
default_destination_recipient_limit = 50
`, port(g.addr[1]), ca.File))
	if _, err := os.Stat("/usr/lib/x86_64-linux-gnu/sasl2/libplain.so"); err != nil {
		if found, _ := filepath.Glob("/usr/lib/*/sasl2/libplain.so"); len(found) == 0 {
			require(t, "Cyrus SASL's PLAIN (libsasl2-modules) is not installed")
		}
	}
	p.start(t, "")
	for i := range 3 {
		text := strings.Replace(odd, "alice@example.net", "alice@example.org", 1)
		text = fmt.Sprintf("Date: Thu, 21 May 2026 05:33:29 -0700\r\nMessage-Id: <%d@example.org>\r\n", i) + text
		out, code := swaks(t, p.addr, "--from", "alice@example.org", "--to", "alice@example.org,bob@example.org,nobody@example.org",
			"--no-data-fixup", "--data", "@"+wireFile(t, text))
		if code != 0 {
			t.Fatalf("swaks: %s", out)
		}
		for _, user := range []string{"bob@example.org", "alice@example.org"} {
			n := i + 1
			if user == "alice@example.org" {
				n *= 2 // and Postfix's reports on nobody
			}
			found := false
			for _, m := range maildirFiles(t, g.maildir(user), n) {
				if bytes.HasSuffix(m, []byte(text)) {
					found = true
					if !bytes.Contains(m, []byte("by mx.example.org (Postern) with ESMTPSA (TLS1.3 ")) {
						t.Errorf("not with ESMTPSA:\n%.600s", m)
					}
				}
			}
			if !found {
				t.Fatalf("message %d is not in %s's maildir as it was", i, user)
			}
		}
	}
	for _, m := range maildirFiles(t, g.maildir("alice@example.org"), 6) {
		if bytes.HasPrefix(m, []byte("Return-Path: <>\r\n")) && !bytes.Contains(m, []byte("550 5.1.1")) {
			t.Errorf("Postfix reports something else:\n%s", m)
		}
	}
}

// Postfix as the server in front, over LMTP: of the recipients of one message each has its
// own answer (RFC 2033 §4.2).
func TestPostfixHandsOverLMTP(t *testing.T) {
	t.Parallel()
	g := start(t, strings.Replace(withSubmission, `role = "submission"`, `role = "lmtp"`, 1))
	g.account("alice@example.org")
	g.account("bob@example.org")
	back := smtptest.New(t, smtptest.Options{})
	peer(t, "postfix")
	p := newPostfix(t, fmt.Sprintf(`relay_domains = example.org
relay_transport = lmtp:inet:%s
relayhost = %s
local_header_rewrite_clients =
`, g.addr[1], strings.Replace(back.Addr(), "127.0.0.1", "[127.0.0.1]", 1)))
	p.start(t, "")
	out, code := swaks(t, p.addr, "--from", "carol@example.net", "--to", "alice@example.org,nobody@example.org,bob@example.org",
		"--no-data-fixup", "--data", "@"+wireFile(t, odd))
	if code != 0 {
		t.Fatalf("swaks: %s", out)
	}
	for _, user := range []string{"alice@example.org", "bob@example.org"} {
		m := maildirFiles(t, g.maildir(user), 1)[0]
		if !bytes.HasSuffix(m, []byte(odd)) || !bytes.HasPrefix(m, []byte("Return-Path: <carol@example.net>\r\nDelivered-To: "+user+"\r\n")) ||
			!bytes.Contains(m, []byte("(Postern) with LMTP")) {
			t.Errorf("%s has\n%.800q", user, m)
		}
	}
	m := back.Wait(t, 1, patience)[0]
	if m.From != "" || m.To[0] != "carol@example.net" || !bytes.Contains(m.Data, []byte("rfc822; nobody@example.org")) || bytes.Contains(m.Data, []byte("rfc822; bob@example.org")) {
		t.Errorf("Postfix reports\n%s", m.Data)
	}
}

// Dovecot's submission service relays to our listener, and its LMTP is where the mail ends:
// a mail program's whole way.
func TestDovecotSubmitsThroughUs(t *testing.T) {
	t.Parallel()
	// The gateway is told where Dovecot is after Dovecot was told where the gateway is.
	listener := freePort(t)
	d := newDovecot(t, []string{"alice@example.org", "bob@example.org"}, fmt.Sprintf("submission_relay_host = 127.0.0.1\nsubmission_relay_port = %s\n", port(listener)))
	g := start(t, strings.Replace(forwarding("example.org", "lmtp://"+d.lmtp), `address = "127.0.0.1:0"`, fmt.Sprintf("address = %q", listener), 1))
	text := strings.Replace(odd, "alice@example.net", "alice@example.org", 1)
	out, code := swaks(t, d.submission, "--auth", "PLAIN", "--auth-user", "alice@example.org", "--auth-password", "secret of alice",
		"--from", "alice@example.org", "--to", "bob@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, text))
	if code != 0 {
		t.Fatalf("swaks: %s", out)
	}
	m := d.login(t, "bob@example.org").next()
	if !bytes.HasSuffix(m, []byte(text)) {
		t.Errorf("arrived as\n%.3000q", m)
	}
	g.drained()
	if n := g.log.count("delivered", nil); n != 1 {
		t.Errorf("%d deliveries", n)
	}
}

// swaks speaks the other protocols of our listeners: LMTP with an answer for each recipient,
// pipelined SMTP, TLS from the first byte, and the PROXY header.
func TestSwaksSpeaks(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+`
[[listener]]
address = "127.0.0.1:0"
role = "lmtp"
[[listener]]
address = "127.0.0.1:0"
role = "mx"
tls = "implicit"
[[listener]]
address = "127.0.0.1:0"
role = "mx"
proxy_from = ["127.0.0.0/8"]
`)
	for i, tc := range []struct {
		addr string
		args []string
		with string
	}{
		{g.addr[1], []string{"--protocol", "LMTP"}, "client.example.net ([127.0.0.1])\r\n\tby mx.example.org (Postern) with LMTP\r\n"},
		{g.addr[0], []string{"--pipeline"}, "client.example.net ([127.0.0.1])\r\n\tby mx.example.org (Postern) with ESMTP\r\n"},
		{g.addr[0], []string{"--protocol", "SMTP"}, "client.example.net ([127.0.0.1])\r\n\tby mx.example.org (Postern) with SMTP\r\n"},
		{g.addr[2], []string{"--tls-on-connect"}, "client.example.net ([127.0.0.1])\r\n\tby mx.example.org (Postern) with ESMTPS (TLS1.3 "},
		{g.addr[3], []string{"--proxy-version", "1", "--proxy-family", "TCP4", "--proxy-source", "192.0.2.77", "--proxy-source-port", "1234", "--proxy-dest", "192.0.2.1", "--proxy-dest-port", "25"},
			"client.example.net ([192.0.2.77])\r\n\tby mx.example.org (Postern) with ESMTP\r\n"},
		{g.addr[3], []string{"--proxy-version", "2", "--proxy-family", "AF_INET6", "--proxy-source", "2001:db8::7", "--proxy-source-port", "1234", "--proxy-dest", "2001:db8::1", "--proxy-dest-port", "25"},
			"client.example.net ([IPv6:2001:db8::7])\r\n\tby mx.example.org (Postern) with ESMTP\r\n"},
	} {
		text := fmt.Sprintf("Subject: %d\r\n\r\n..\r\n", i)
		out, code := swaks(t, tc.addr, append(tc.args, "--from", "alice@example.net", "--to", "bob@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, text))...)
		if code != 0 {
			t.Errorf("%v: exit code %d\n%s", tc.args, code, out)
			return
		}
		m := sink.Wait(t, i+1, patience)[i]
		if !bytes.HasPrefix(m.Data, []byte("Received: from "+tc.with)) || !bytes.HasSuffix(m.Data, []byte(text)) {
			t.Errorf("%v: arrived as\n%s", tc.args, m.Data)
		}
	}
}

// L-02: two gateways that send to each other end it by the number of Received fields, with
// one report to the sender.
func TestL02TwoGatewaysLoop(t *testing.T) {
	t.Parallel()
	back := smtptest.New(t, smtptest.Options{})
	second := freePort(t)
	sender := fmt.Sprintf("[[domain]]\nname = \"example.net\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", back.Addr())
	a := start(t, forwarding("example.org", "smtp://"+second)+sender)
	b := start(t, strings.Replace(forwarding("example.org", "smtp://"+a.addr[0]), `address = "127.0.0.1:0"`, fmt.Sprintf("address = %q", second), 1)+sender)
	a.deliver("alice@example.net", []string{"bob@example.org"}, "Subject: round and round\r\n\r\nbody")
	n := parseReport(t, back.Wait(t, 1, patience)[0])
	if len(n.recipients) != 1 || n.recipients[0].Get("Status") != "5.4.6" {
		t.Errorf("report: %v", n.recipients)
	}
	hops := a.log.count("accepted", nil) + b.log.count("accepted", nil)
	if hops > 110 || hops < 90 {
		t.Errorf("%d messages accepted", hops)
	}
	if got := len(back.Messages()); got != 1 {
		t.Errorf("%d reports", got)
	}
}
