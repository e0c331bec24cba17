package smtpcmd

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

var everything = Extensions{DSN: true, Auth: true, RequireTLS: true}

// check compares a fault with the beginning of the reply that is wanted, 250 for none.
func check(t *testing.T, arg string, fault mail.Status, want string) {
	t.Helper()
	if fault.IsZero() {
		fault = mail.OK(250, 0, 0, "Ok")
	}
	if !strings.HasPrefix(fault.Error(), want) {
		t.Errorf("%.80q: %s, want %s", arg, fault.Error(), want)
	}
}

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
		r, st := ParseRcpt("TO:"+c.arg, "mx.test", false, everything)
		check(t, "TO:"+c.arg, st, c.want)
		if st.IsZero() && r.Forward.String() != c.path {
			t.Errorf("%s: path %q, want %q", c.arg, r.Forward, c.path)
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
		m, st := ParseMail("FROM:"+c.arg, everything)
		check(t, "FROM:"+c.arg, st, c.want)
		if st.IsZero() && m.Reverse.String() != c.path {
			t.Errorf("%s: path %q, want %q", c.arg, m.Reverse, c.path)
		}
	}
	for _, arg := range []string{"<a@x.test>", "", "TO:<a@x.test>"} {
		_, st := ParseMail(arg, everything)
		check(t, arg, st, "501 5.5.4")
	}
}
