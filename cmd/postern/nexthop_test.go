package main_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// A real Postfix as a next hop that is difficult in the ways in which servers are.

// H-10: a next hop without 8BITMIME gets the bytes as they are; no bit is stripped.
func TestH10PostfixWithout8BITMIME(t *testing.T) {
	t.Parallel()
	p := virtualPostfix(t, "example.org", []string{"bob"}, "smtpd_discard_ehlo_keywords = 8bitmime, pipelining, chunking, dsn, smtputf8\n")
	p.start(t, "")
	g := start(t, forwarding("example.org", "smtp://"+p.addr))
	swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org", "--no-data-fixup", "--data", "@"+wireFile(t, odd))
	untouched(t, maildirFiles(t, p.mailbox("bob"), 1)[0], []byte(odd))
}

// TLS is used where it is offered, whoever signed the certificate, and the mail goes in the
// clear where its handshake cannot succeed.
func TestOpportunisticTLSWithPostfix(t *testing.T) {
	t.Parallel()
	ca := smtptest.NewCA(t)
	cert, key := pems(t, ca.Issue(t, nil, nil, "whatever.example"))
	for _, tc := range []struct{ name, protocols, want string }{
		{"offered", ">=TLSv1.2", "(using TLSv1.3 "},
		{"too old", "<=TLSv1.1", "with ESMTP id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := virtualPostfix(t, "example.org", []string{"bob"}, fmt.Sprintf("smtpd_tls_security_level = may\nsmtpd_tls_cert_file = %s\nsmtpd_tls_key_file = %s\nsmtpd_tls_received_header = yes\nsmtpd_tls_protocols = %s\n", cert, key, tc.protocols))
			p.start(t, "")
			g := start(t, forwarding("example.org", "smtp://"+p.addr))
			_, id := swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org")
			g.log.wait(t, "delivered", has("id", id))
			if m := maildirFiles(t, p.mailbox("bob"), 1)[0]; !bytes.Contains(m, []byte(tc.want)) {
				t.Errorf("no %q in\n%s", tc.want, m)
			}
		})
	}
}

// A next hop that takes five recipients at a time gets all twelve, each once; one that finds
// the message too large says so to the sender.
func TestPostfixLimits(t *testing.T) {
	t.Parallel()
	var users, to []string
	for i := range 12 {
		users = append(users, fmt.Sprintf("user%d", i))
		to = append(to, fmt.Sprintf("user%d@example.org", i))
	}
	p := virtualPostfix(t, "example.org", users, "smtpd_recipient_limit = 5\nsmtpd_recipient_overshoot_limit = 1000\nmessage_size_limit = 100000\n")
	p.start(t, "")
	back := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+p.addr)+
		fmt.Sprintf("[[domain]]\nname = \"example.net\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", back.Addr()))
	_, id := swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", strings.Join(to, ","), "--no-data-fixup", "--data", "@"+wireFile(t, odd))
	for _, rcpt := range to {
		g.log.wait(t, "delivered", has("id", id, "to", rcpt))
	}
	for _, user := range users {
		untouched(t, maildirFiles(t, p.mailbox(user), 1)[0], []byte(odd))
	}
	g.deliver("alice@example.net", []string{to[0]}, "Subject: large\r\n\r\n"+strings.Repeat(strings.Repeat("x", 98)+"\r\n", 2000))
	n := parseReport(t, back.Wait(t, 1, patience)[0])
	if n.recipients[0].Get("Status") != "5.3.4" {
		t.Errorf("report: %v", n.recipients)
	}
	maildirFiles(t, p.mailbox("user0"), 1)
}

// A next hop that goes away and comes back gets what waited, each message once, with no
// command from anybody.
func TestPostfixComesBack(t *testing.T) {
	t.Parallel()
	p := virtualPostfix(t, "example.org", []string{"bob"}, "")
	g := start(t, forwarding("example.org", "smtp://"+p.addr))
	var ids []string
	for i := range 5 {
		ids = append(ids, g.deliver("alice@example.net", []string{"bob@example.org"}, fmt.Sprintf("Subject: %d\r\n\r\nbody", i)))
	}
	g.log.wait(t, "deferred", nil)
	p.start(t, "")
	for _, id := range ids {
		g.log.wait(t, "delivered", has("id", id))
	}
	maildirFiles(t, p.mailbox("bob"), 5)
	g.drained()
}

// L-08: what the sender wants to hear is passed on to a next hop that can report, with the
// envelope id and the original recipient, and the gateway keeps silent; where the next hop
// cannot, the gateway reports that it relayed. NEVER means never.
func TestL08DSNThroughPostfix(t *testing.T) {
	t.Parallel()
	back := smtptest.New(t, smtptest.Options{})
	p := virtualPostfix(t, "example.org", []string{"bob"}, fmt.Sprintf("relayhost = [127.0.0.1]:%s\n", port(back.Addr())))
	p.start(t, "")
	old := smtptest.New(t, smtptest.Options{Extensions: []string{"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"}})
	g := start(t, strings.Replace(forwarding("example.org", "smtp://"+p.addr), "role = \"mx\"", "role = \"mx\"\ndsn = true", 1)+
		fmt.Sprintf("[[domain]]\nname = \"example.com\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", old.Addr())+
		fmt.Sprintf("[[domain]]\nname = \"example.net\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", back.Addr()))
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	send := func(rcpt, params string) {
		c.cmd(250, "MAIL FROM:<alice@example.net> RET=HDRS ENVID=ee+2B314")
		c.cmd(250, "RCPT TO:<%s> %s ORCPT=rfc822;first+2B@example.org", rcpt, params)
		c.cmd(354, "DATA")
		c.send("Subject: x\r\n\r\nbody\r\n.\r\n")
		c.expect(250)
	}
	send("nobody@example.org", "NOTIFY=NEVER")
	g.log.wait(t, "failed", has("to", "nobody@example.org"))
	send("bob@example.org", "NOTIFY=SUCCESS,FAILURE")
	m := back.Wait(t, 1, patience)[0]
	if !bytes.Contains(m.Data, []byte("postfix.test")) || m.From != "" || m.To[0] != "alice@example.net" {
		t.Fatalf("not a report by Postfix: <%s> %v\n%s", m.From, m.To, m.Data)
	}
	for _, want := range []string{"Original-Envelope-Id: ee+314", "Original-Recipient: rfc822;first+@example.org", "Action: delivered"} {
		if !bytes.Contains(m.Data, []byte(want)) {
			t.Errorf("no %q in Postfix's report\n%s", want, m.Data)
		}
	}
	send("carol@example.com", "NOTIFY=SUCCESS")
	n := parseReport(t, back.Wait(t, 2, patience)[1])
	r := n.recipients[0]
	if r.Get("Action") != "relayed" || r.Get("Original-Recipient") != "rfc822;first+@example.org" && r.Get("Original-Recipient") != "rfc822; first+@example.org" ||
		n.about.Get("Original-Envelope-Id") != "ee+314" {
		t.Errorf("our report: %v %v", n.about, r)
	}
	g.drained()
	if got := len(back.Messages()); got != 2 {
		t.Errorf("%d reports, want 2", got)
	}
}
