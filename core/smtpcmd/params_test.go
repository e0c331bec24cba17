package smtpcmd

import (
	"strings"
	"testing"
)

func TestP17Parameters(t *testing.T) {
	offered := Extensions{DSN: true, Auth: true}
	for _, p := range []struct{ params, want string }{
		{"SIZE=-1", "501 5.5.4"}, {"SIZE=", "501 5.5.4"}, {"SIZE", "501 5.5.4"}, {"SIZE=0x10", "501 5.5.4"}, {"SIZE=1e3", "501 5.5.4"},
		{"SIZE=" + strings.Repeat("9", 30), "501 5.5.4"}, {"SIZE=99999999999999999999", "501 5.5.4"}, {"SIZE=9223372036854775807", "250"},
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
		_, st := ParseMail("FROM:<a@x.test> "+p.params, offered)
		check(t, p.params, st, p.want)
	}
	_, st := ParseMail("FROM:<a@x.test> REQUIRETLS", everything)
	check(t, "REQUIRETLS", st, "250")
	for _, params := range []string{"RET=FULL", "ENVID=x", "AUTH=<>", "REQUIRETLS"} {
		_, st := ParseMail("FROM:<a@x.test> "+params, Extensions{})
		check(t, params, st, "555 5.5.4")
	}
}

func TestA17RecipientParameters(t *testing.T) {
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
		r, st := ParseRcpt("TO:<b@mx.test> "+p.params, "mx.test", true, everything)
		check(t, p.params, st, p.want)
		if st.IsZero() && r.ORCPT != p.orcpt {
			t.Errorf("%s: %q", p.params, r.ORCPT)
		}
	}
	for _, params := range []string{"NOTIFY=NEVER", "ORCPT=rfc822;a"} {
		_, st := ParseRcpt("TO:<b@mx.test> "+params, "mx.test", true, Extensions{})
		check(t, params, st, "555 5.5.4")
	}
}
