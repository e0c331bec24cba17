package smtpd

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

// rcptTable checks RCPT for a set of arguments; a reply of 250 has the Path that the
// policy was asked about.
func TestA15toA29Recipients(t *testing.T) {
	local64, label63 := strings.Repeat("l", 64), strings.Repeat("d", 63)
	domain := label63 + "." + label63 + "." + label63 + "." // 192 octets
	for _, c := range []struct{ arg, want, path string }{
		// quoted local parts.
		{`<"a b"@x.test>`, "250", `"a b"@x.test`},
		{`<"a\"b"@x.test>`, "250", `"a\"b"@x.test`},
		{`<"a@b"@x.test>`, "250", `"a@b"@x.test`},
		{`<"a>b"@x.test>`, "250", `"a>b"@x.test`},
		{`<"a\>b"@x.test>`, "250", `"a>b"@x.test`},
		{`<"plain"@x.test>`, "250", `plain@x.test`},
		{`<"t@e> ORCPT=admin@evil"@x.test>`, "250", `"t@e> ORCPT=admin@evil"@x.test`},
		{`<"open@x.test>`, "501 5.1.3", ""},
		{`<"a"b@x.test>`, "501 5.1.3", ""},
		{`<"">`, "501 5.1.3", ""},
		{`<""@x.test>`, "501 5.1.3", ""},
		// every form of a relay probe is one address, or refused.
		{`<x@ext@mx.test>`, "501 5.1.3", ""},
		{`<"x@ext"@mx.test>`, "250", `"x@ext"@mx.test`},
		{`<x%ext@mx.test>`, "250", `x%ext@mx.test`},
		{`<ext!x@mx.test>`, "250", `ext!x@mx.test`},
		{`<ext!x>`, "501 5.1.3", ""},
		{`<@mx.test:x@ext.test>`, "250", `x@ext.test`},
		{`<@a.test,@b.test:x@ext.test>`, "250", `x@ext.test`},
		{`<@a.test,b.test:x@ext.test>`, "501 5.1.3", ""},
		{`<@a.test:>`, "501 5.1.3", ""},
		{`<@a.test>`, "501 5.1.3", ""},
		{`<x@[127.0.0.1]>`, "250", `x@[127.0.0.1]`},
		{`<x@[IPv6:::1]>`, "250", `x@[IPv6:::1]`},
		{`<x@[::1]>`, "501 5.1.3", ""},
		{`<x@ext.test.>`, "250", `x@ext.test`},
		// no comments, no folding, no encoded words undone.
		{`<=?utf-8?q?=61=40evil?=@x.test>`, "250", `=?utf-8?q?=61=40evil?=@x.test`},
		{`<a(c)@x.test>`, "501 5.1.3", ""},
		{`<a@x.test (c)>`, "501 5.1.3", ""},
		{`<a b@x.test>`, "501 5.1.3", ""},
		{`<+AGE-@x.test>`, "250", `+AGE-@x.test`},
		// international names.
		{`<a@xn--bcher-kva.test>`, "250", `a@xn--bcher-kva.test`},
		{`<a@BÜCHER.test>`, "553 5.6.7", ""},
		{`<ü@x.test>`, "553 5.6.7", ""},
		{`<a@xn--a.test>`, "501 5.1.3", ""},
		// lengths.
		{`<` + local64 + `@x.test>`, "250", local64 + `@x.test`},
		{`<` + local64 + `l@x.test>`, "501 5.1.3", ""},
		{`<a@` + label63 + `>`, "250", `a@` + label63},
		{`<a@` + label63 + `d>`, "501 5.1.3", ""},
		{`<` + local64 + `@` + domain[:189] + `>`, "250", local64 + `@` + domain[:189]}, // 254 octets
		{`<` + local64 + `@` + domain[:190] + `>`, "501 5.1.3", ""},
		{`<a@` + domain + label63 + `>`, "501 5.1.3", ""}, // 255 octets
		// nothing is executed, everything is text.
		{`<;id;@x.test>`, "501 5.1.3", ""},
		{"<`id`@x.test>", "250", "`id`@x.test"},
		{`<${run{id}}@x.test>`, "250", `${run{id}}@x.test`},
		{`<%s%n@x.test>`, "250", `%s%n@x.test`},
		{`<|/bin/sh@x.test>`, "250", `|/bin/sh@x.test`},
		//
		{`<postmaster>`, "250", `postmaster@mx.test`},
		{`<PostMaster>`, "250", `postmaster@mx.test`},
		{`<>`, "501 5.1.3", ""},
		// Forms.
		{`a@x.test`, "501 5.1.3", ""},
		{`<a@x.test`, "501 5.1.3", ""},
		{`<a@x.test>>`, "501 5.1.3", ""},
		{`<a@x.test>x`, "501 5.1.3", ""},
		{`<a@x.test>NOTIFY=NEVER`, "501 5.1.3", ""},
		{`<<a@x.test>>`, "501 5.1.3", ""},
		{` <a@x.test> `, "250", `a@x.test`},
		{`<.a@x.test>`, "501 5.1.3", ""},
		{`<a.@x.test>`, "501 5.1.3", ""},
		{`<a..b@x.test>`, "501 5.1.3", ""},
		{`<a@>`, "501 5.1.3", ""},
		{`<@x.test>`, "501 5.1.3", ""},
		{`<a@-x.test>`, "501 5.1.3", ""},
		{`<a@x..test>`, "501 5.1.3", ""},
		{`<a@x.test/y>`, "501 5.1.3", ""},
		{``, "501 5.1.3", ""},
	} {
		t.Run(c.arg, func(t *testing.T) {
			var asked mail.Path
			r := startRig(t, &rig{recipient: func(_ *mail.Envelope, p mail.Path) mail.Status { asked = p; return mail.Status{} }})
			d := r.hi()
			d.do("MAIL FROM:<a@client.test>\r\n", "250")
			d.do("RCPT TO:"+c.arg+"\r\n", c.want)
			if asked.String() != c.path {
				t.Errorf("path %q, want %q", asked, c.path)
			}
		})
	}
}

func TestA21SMTPUTF8(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.do("MAIL FROM:<ü@x.test>\r\n", "553 5.6.7")
	c.do("MAIL FROM:<a@bücher.test>\r\n", "553 5.6.7")
	c.do("MAIL FROM:<ü@bücher.test> SMTPUTF8\r\n", "250")
	for _, domain := range []string{"bücher.test", "BÜCHER.test", "xn--bcher-kva.test", "bücher。test", "bücher.test."} {
		c.do("RCPT TO:<ü@"+domain+">\r\n", "250")
	}
	c.do("RCPT TO:<\u2028@x.test>\r\n", "501 5.1.3")
	c.do("RCPT TO:<\u0085@x.test>\r\n", "501 5.1.3")
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	m := r.only("x\r\n")
	for _, p := range m.env.Recipients {
		if p.Path.String() != "ü@xn--bcher-kva.test" {
			t.Errorf("%q", p.Path)
		}
	}
}

func TestSender(t *testing.T) {
	local := strings.Repeat("l", 64)
	for _, c := range []struct{ arg, want, path string }{
		{"<>", "250", ""},
		{"<a@x.test>", "250", "a@x.test"},
		{"<@r.test:a@x.test>", "250", "a@x.test"},
		{"<postmaster>", "501 5.1.7", ""},
		{"<\"\"@x.test>", "501 5.1.7", ""},
		{"<@r.test:>", "501 5.1.7", ""},
		{"<" + local + "l@x.test>", "501 5.1.7", ""},
		{"a@x.test", "501 5.1.7", ""},
		{"<a@x.test", "501 5.1.7", ""},
		{"<a@b@x.test>", "501 5.1.7", ""},
	} {
		var asked mail.Path
		r := startRig(t, &rig{sender: func(_ *mail.Client, p mail.Path, _ int64) mail.Status { asked = p; return mail.Status{} }})
		d := r.hi()
		d.do("MAIL FROM:"+c.arg+"\r\n", c.want)
		if asked.String() != c.path {
			t.Errorf("%s: path %q, want %q", c.arg, asked, c.path)
		}
	}
	r := newRig(t)
	d := r.hi()
	d.do("MAIL <a@x.test>\r\n", "501 5.5.4")
	d.do("MAIL\r\n", "501 5.5.4")
	d.do("MAIL TO:<a@x.test>\r\n", "501 5.5.4")
}

func TestP17Parameters(t *testing.T) {
	r := newRig(t, withTLS(TLSStart), func(o *Options) { o.Auth = AuthOptional; o.Limits.Errors = 1000 })
	c := r.hi()
	for _, p := range []struct{ params, want string }{
		{"SIZE=-1", "501 5.5.4"}, {"SIZE=", "501 5.5.4"}, {"SIZE", "501 5.5.4"}, {"SIZE=0x10", "501 5.5.4"}, {"SIZE=1e3", "501 5.5.4"},
		{"SIZE=" + strings.Repeat("9", 30), "501 5.5.4"}, {"SIZE=99999999999999999999", "501 5.5.4"}, {"SIZE=9223372036854775807", "552 5.3.4"},
		{"SIZE=1 SIZE=2", "501 5.5.4"}, {"BODY=7BIT body=8BITMIME", "501 5.5.4"}, {"SMTPUTF8 SMTPUTF8", "501 5.5.4"},
		{"FOO", "555 5.5.4"}, {"FOO=bar", "555 5.5.4"}, {"XVERP", "555 5.5.4"}, {"MT-PRIORITY=3", "555 5.5.4"},
		{"=", "501 5.5.4"}, {"=x", "501 5.5.4"}, {"SIZE==1", "501 5.5.4"}, {"-A=1", "501 5.5.4"}, {"A_B=1", "501 5.5.4"},
		{"BODY=BINARYMIME", "501 5.5.4"}, {"BODY", "501 5.5.4"}, {"SMTPUTF8=1", "501 5.5.4"},
		{"REQUIRETLS", "555 5.5.4"},
		{"RET=ALL", "501 5.5.4"}, {"RET", "501 5.5.4"}, {"ENVID=", "501 5.5.4"},
		// what xtext stands for cannot end a line.
		{"ENVID=+0A", "501 5.5.4"}, {"ENVID=a+0D+0AQUIT", "501 5.5.4"}, {"ENVID=+00", "501 5.5.4"}, {"ENVID=+7F", "501 5.5.4"}, {"ENVID=+E2+80+A8", "501 5.5.4"},
		{"ENVID=+4", "501 5.5.4"}, {"ENVID=+", "501 5.5.4"}, {"ENVID=+4g", "501 5.5.4"}, {"ENVID=+4a", "501 5.5.4"}, {"ENVID=ü", "501 5.5.4"},
		{"ENVID=" + strings.Repeat("x", 101), "501 5.5.4"}, {"AUTH=<a+0Ab>", "501 5.5.4"}, {"AUTH=", "501 5.5.4"},
		{"ENVID=" + strings.Repeat("x", 100), "250"}, {"AUTH=<>", "250"}, {"AUTH=a@x.test", "250"}, {"AUTH=e+3Dmc2@x.test", "250"},
		{" SIZE=5   BODY=7bit ", "250"}, {"body=8bitmime smtputf8 ret=full envid=a+3Db", "250"},
	} {
		c.do("MAIL FROM:<a@x.test> "+p.params+"\r\n", p.want)
		c.do("RSET\r\n", "250")
	}
	c.do("MAIL FROM:<a@x.test> "+strings.Repeat("A=1 ", 10_000)+"\r\n", "500 5.5.2")
}

func TestA17RecipientParameters(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Errors = 1000 })
	c := r.hi()
	c.do("MAIL FROM:<a@x.test> SMTPUTF8\r\n", "250")
	for _, p := range []struct{ params, want, orcpt string }{
		{"ORCPT=rfc822;a+0D+0AQUIT", "501 5.5.4", ""}, {"ORCPT=rfc822;", "501 5.5.4", ""}, {"ORCPT=;a", "501 5.5.4", ""}, {"ORCPT=rfc822", "501 5.5.4", ""},
		{"ORCPT=rf c;a", "501 5.5.4", ""}, {"ORCPT=r+0Ac;a", "501 5.5.4", ""}, {"ORCPT=rfc822;" + strings.Repeat("a", 494), "501 5.5.4", ""},
		{`ORCPT=utf-8;a\x{0A}b`, "501 5.5.4", ""}, {`ORCPT=utf-8;a\x{2028}b`, "501 5.5.4", ""}, {`ORCPT=utf-8;a\x{110000}`, "501 5.5.4", ""}, {`ORCPT=utf-8;a\x{D800}`, "501 5.5.4", ""},
		{`ORCPT=utf-8;a\x{41`, "501 5.5.4", ""}, {`ORCPT=utf-8;a\41}`, "501 5.5.4", ""}, {`ORCPT=utf-8;a+b`, "501 5.5.4", ""},
		{"NOTIFY=NEVER,SUCCESS", "501 5.5.4", ""}, {"NOTIFY=SUCCESS,SUCCESS", "501 5.5.4", ""}, {"NOTIFY=", "501 5.5.4", ""}, {"NOTIFY=A", "501 5.5.4", ""}, {"NOTIFY=FAILURE,", "501 5.5.4", ""},
		{"NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4", ""}, {"SIZE=1", "555 5.5.4", ""}, {"RRVS=x", "555 5.5.4", ""},
		{"ORCPT=rfc822;" + strings.Repeat("a", 493), "250", "rfc822;" + strings.Repeat("a", 493)},
		{"ORCPT=rfc822;Bob+20+2B+3D@x", "250", "rfc822;Bob +=@x"},
		{`ORCPT=utf-8;\x{FC}@x NOTIFY=NEVER`, "250", "utf-8;ü@x"},
		{`ORCPT=UTF-8;ü@x`, "250", "UTF-8;ü@x"},
	} {
		c.do("RCPT TO:<b@mx.test> "+p.params+"\r\n", p.want)
		if p.want != "250" {
			continue
		}
		c.do("DATA\r\n", "354")
		c.do("x\r\n.\r\n", "250")
		m := r.queued()
		if got := m[len(m)-1].env.Recipients[0].ORCPT; got != p.orcpt {
			t.Errorf("%s: %q", p.params, got)
		}
		c.do("MAIL FROM:<a@x.test> SMTPUTF8\r\n", "250")
	}
	plain := newRig(t, func(o *Options) { o.DSN = false })
	d := plain.hi()
	d.do("MAIL FROM:<a@x.test> RET=FULL\r\n", "555 5.5.4")
	d.do("MAIL FROM:<a@x.test>\r\n", "250")
	d.do("RCPT TO:<b@mx.test> NOTIFY=NEVER\r\n", "555 5.5.4")
	d.do("RCPT TO:<b@mx.test> ORCPT=rfc822;a\r\n", "555 5.5.4")
}

func TestA26ManyRecipients(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Recipients = 100 })
	c := r.hi()
	cmds, want := "MAIL FROM:<a@x.test>\r\n", []string{"250"}
	for i := range 1000 {
		cmds += "RCPT TO:<b" + itoa(i) + "@mx.test>\r\n"
		if i < 100 {
			want = append(want, "250")
		} else {
			want = append(want, "452 4.5.3")
		}
	}
	c.do(cmds+"DATA\r\n", append(want, "354")...)
	c.do("x\r\n.\r\n", "250")
	if m := r.only("x\r\n"); len(m.env.Recipients) != 100 || m.env.Recipients[99].Path.Local != "b99" {
		t.Errorf("%d recipients", len(m.env.Recipients))
	}
}

func TestA27ManyBadRecipients(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.do("MAIL FROM:<a@x.test>\r\n", "250")
	for range 10 {
		c.do("RCPT TO:<no@mx.test>\r\n", "550")
	}
	c.expect("421 4.7.0")
	c.closed()
	// Who we relay for may have a bad list.
	trusted := startRig(t, &rig{connect: func(c *mail.Client) mail.Status { c.Class = mail.Relay; return mail.Status{} }})
	c = trusted.hi()
	c.do("MAIL FROM:<a@x.test>\r\n", "250")
	for range 50 {
		c.do("RCPT TO:<no@mx.test>\r\n", "550")
	}
	c.do("RCPT TO:<b@mx.test>\r\n", "250")
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	if m := trusted.only("x\r\n"); m.env.Origin != mail.Submitted {
		t.Errorf("origin %v", m.env.Origin)
	}
}

// FuzzCommand: no command line makes the parsers panic, and what they accept is safe.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{`FROM:<a@b.test> SIZE=1`, `TO:<"a b"@x.test> ORCPT=rfc822;a+0A`, `TO:<@a.test:b@c.test>`, `FROM:<ü@x.test> SMTPUTF8`, `TO:<postmaster> NOTIFY=NEVER`, `5 LAST`} {
		f.Add(s)
	}
	s := &session{server: &Server{opt: Options{Hostname: "mx.test", DSN: true, Auth: AuthOptional, Limits: Limits{MessageSize: 1000}}}}
	s.env = &mail.Envelope{UTF8: true}
	f.Fuzz(func(t *testing.T, arg string) {
		if _, ok := lineFault([]byte(arg)); !ok {
			return
		}
		unsafe := func(text string) bool {
			return strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' })
		}
		if a, st := s.parseMail(arg); st.IsZero() {
			again, err := mail.ParsePath(a.reverse.String())
			if err != nil || again != a.reverse || unsafe(a.reverse.String()) || unsafe(a.envelopeID) || a.size < 0 || a.size > 1000 {
				t.Fatalf("%+v", a)
			}
		} else if st.Code < 500 {
			t.Fatalf("%+v", st)
		}
		if a, st := s.parseRcpt(arg); st.IsZero() {
			again, err := mail.ParsePath(a.path.String())
			if err != nil || again != a.path || a.path.IsZero() || unsafe(a.path.String()) || unsafe(a.orcpt) {
				t.Fatalf("%+v", a)
			}
		}
		if c, err := parseChunk(arg); err == nil && c.left < 0 {
			t.Fatalf("%+v", c)
		}
	})
}
