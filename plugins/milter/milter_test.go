package milter

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func verdict(t testing.TB, p *Plugin, m *mail.Message) *sdk.Verdict {
	t.Helper()
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Everything that is known of a message is replayed, with the macros that Postfix sends.
func TestReplay(t *testing.T) {
	f := newFake(t, agreeable(0x1ff, 0x100000, nil))
	p := configured(t, f.addr, "skip_headers = [\"X-Secret\"]\nmacros = {daemon_name = \"ORIGINATING\", \"{x_own}\" = \"1\"}\n")
	m := message("X-Top: 1\r\nReceived: from client.example.net ([192.0.2.7])\r\n\tby mx.example.org (Postern) with ESMTPS\r\n\tid 0c1f3k9w2m4xq;\r\n\tThu, 21 May 2026 05:33:29 -0700\r\n"+
		"Received: from other by mx.example.org (Postern)\r\nX-Secret: s\r\nSubject:  folded\r\n\t here \r\nTo:none\r\nX-Empty:\r\n\r\nbody\r\n", "bob@example.org", "\"b c\"@example.org")
	m.Envelope.BodyType, m.Envelope.UTF8, m.Envelope.Return, m.Envelope.EnvelopeID = mail.Body8BitMIME, true, mail.ReturnHeaders, "a+b"
	m.Envelope.Recipients[0].Notify, m.Envelope.Recipients[0].ORCPT = mail.NotifySuccess|mail.NotifyDelay, "rfc822;b=b@example.org"
	m.Envelope.Recipients[1].ORCPT = "utf-8;ü@example.org"
	m.Envelope.Client = mail.Client{Addr: netip.MustParseAddr("::ffff:192.0.2.7"), Port: 4711, Helo: "client.example.net", Host: "host.example.net", User: "alice@example.net",
		TLS: "TLS1.3 TLS_AES_128_GCM_SHA256", Listener: "127.0.0.1:587", Mechanism: "SCRAM-SHA-256", PTR: "host.example.net", Connections: 3}
	v := verdict(t, p, m)
	if v.Action != sdk.ActionContinue || len(v.Edits) != 0 || v.Notes["answer"] != "accept at end of message" {
		t.Errorf("%+v", v)
	}
	want := []string{
		"C host.example.net|4\x12g192.0.2.7",
		"H client.example.net",
		"M <alice@example.net>|SIZE=" + fmt.Sprint(m.Size()) + "|BODY=8BITMIME|SMTPUTF8|RET=HDRS|ENVID=a+2Bb",
		"R <bob@example.org>|NOTIFY=SUCCESS,DELAY|ORCPT=rfc822;b+3Db@example.org",
		`R <"b c"@example.org>|ORCPT=utf-8;\x{FC}@example.org`,
		"T ",
		"L X-Top| 1",
		"L Received| from other by mx.example.org (Postern)",
		"L Subject|  folded\n\t here ",
		"L To|none",
		"L X-Empty|",
		"N ",
		"B body\r\n",
		"E ",
		"A ", "Q ",
	}
	f.ended(1)
	if d := cmp.Diff(want, f.heard("CHMRTLNBEAQ")); d != "" {
		t.Error(d)
	}
	macros := f.heard("D")
	slices.Sort(macros) // the order is that of the commands anyway
	for _, want := range []string{
		"DCj|mx.example.org|{daemon_name}|ORIGINATING|{daemon_addr}|127.0.0.1|{daemon_port}|587|v|Postern|_|host.example.net [192.0.2.7]|{client_addr}|192.0.2.7|{client_name}|host.example.net|{client_port}|4711|{client_ptr}|host.example.net|{client_resolve}|OK|{client_connections}|3|{x_own}|1",
		"DH{tls_version}|TLSv1.3|{cipher}|TLS_AES_128_GCM_SHA256|{cipher_bits}|128",
		"DMi|0c1f3k9w2m4xq|{auth_type}|SCRAM-SHA-256|{auth_authen}|alice@example.net|{mail_addr}|alice@example.net|{mail_host}|example.net|{mail_mailer}|smtp",
		"DRi|0c1f3k9w2m4xq|{rcpt_addr}|bob@example.org|{rcpt_host}|example.org|{rcpt_mailer}|smtp",
		"DTi|0c1f3k9w2m4xq", "DNi|0c1f3k9w2m4xq", "DEi|0c1f3k9w2m4xq",
	} {
		if !slices.Contains(macros, "D "+want[1:]) {
			t.Errorf("no macros %s in\n%s", want, strings.Join(macros, "\n"))
		}
	}
}

// A name that does not lead back is told as such; so is that there is none, and a log-in whose
// mechanism an older gateway did not store.
func TestReplayUnverified(t *testing.T) {
	f := newFake(t, agreeable(0, 0, nil))
	p := configured(t, f.addr, "")
	m := message(small, "bob@example.org")
	m.Envelope.Client = mail.Client{Addr: netip.MustParseAddr("192.0.2.8"), PTR: "claimed.example.net", User: "alice@example.net"}
	verdict(t, p, m)
	m.Envelope.Client = mail.Client{Addr: netip.MustParseAddr("192.0.2.8")}
	verdict(t, p, m)
	f.ended(2)
	all := strings.Join(f.heard("D"), "\n")
	for _, want := range []string{"|_|claimed.example.net [192.0.2.8] (may be forged)|{client_addr}|192.0.2.8|{client_name}|unknown|", "{client_ptr}|claimed.example.net|{client_resolve}|FORGED|{client_connections}|0",
		"|_|unknown [192.0.2.8]|", "{client_ptr}|unknown|{client_resolve}|FAIL|", "{auth_type}|SASL|{auth_authen}|alice@example.net|"} {
		if strings.Count(all, want) != 1 {
			t.Errorf("not once %s in\n%s", want, all)
		}
	}
}

// Mail that no client brought comes from this machine, as with Postfix; without the option
// leading white space is not sent; IPv6 is told without prefix.
func TestReplayWithoutClient(t *testing.T) {
	f := newFake(t, agreeable(0, 0, nil))
	p := configured(t, f.addr, "")
	m := message("Subject: \t x\r\n", "bob@example.org") // no blank line, no body
	m.Envelope.ReversePath = mail.Path{}
	verdict(t, p, m)
	want := []string{"C localhost|4\x00\x00127.0.0.1", "H mx.example.org", "M <>|SIZE=14", "R <bob@example.org>", "L Subject|x", "N ", "E "}
	got := f.heard("CHMRLNBE")
	got[0] = strings.Replace(got[0], "4||", "4\x00\x00", 1)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	m.Envelope.Client.Addr = netip.MustParseAddr("2001:db8::1")
	verdict(t, p, m)
	if got := f.heard("C"); got[1] != "C unknown|6||2001:db8::1" {
		t.Errorf("%q", got[1])
	}
}

// Options of the negotiation are kept: nothing is sent that is not wanted, no answer is
// waited for that does not come, and a milter gets the macros that it asks for.
func TestNegotiated(t *testing.T) {
	quiet := func(code byte, _ []byte) []byte {
		switch code {
		case 'O':
			return optneg(6, 0x1ff, 0x100000|0xff080, []byte(number(3)+"i, {client_addr}\x00"+number(0)+"\x00")...)
		case 'E':
			return packet('a', "")
		}
		return nil
	}
	f := newFake(t, quiet)
	verdict(t, configured(t, f.addr, ""), message(small, "bob@example.org"))
	if d := cmp.Diff([]string{"D Ri|0c1f3k9w2m4xq|{client_addr}|127.0.0.1"}, f.heard("D")[len(f.heard("D"))-4:][:1]); d != "" {
		t.Error(d)
	}
	if s := strings.Join(f.heard("D"), "\n"); strings.Contains(s, "daemon_name") {
		t.Error("macros that were not asked for:", s)
	}
	f = newFake(t, func(code byte, _ []byte) []byte {
		switch code {
		case 'O':
			return optneg(6, 0, 0x7f|0x300)
		case 'E':
			return packet('c', "")
		}
		return nil
	})
	verdict(t, configured(t, f.addr, ""), message(small, "bob@example.org"))
	if got := f.heard("CHMRTLNB"); len(got) != 0 {
		t.Errorf("%q", got)
	}
	for _, version := range []uint32{2, 3} { // no DATA before version 4
		f = newFake(t, agreeableVersion(version))
		verdict(t, configured(t, f.addr, ""), message(small, "bob@example.org"))
		if got := f.heard("T"); len(got) != 0 {
			t.Errorf("version %d: %q", version, got)
		}
	}
}

func agreeableVersion(v uint32) answers {
	return agreeable(0, 0, map[byte][]byte{'O': optneg(v, 0x3f, 0)})
}

// Every answer, at every step.
func TestAnswers(t *testing.T) {
	type outcome struct{ verdict, text string }
	all := map[string]struct {
		packet []byte
		want   outcome
	}{
		"accept":     {packet('a', ""), outcome{"continue", ""}},
		"reject":     {packet('r', ""), outcome{"reject", "550 5.7.1 Message rejected"}},
		"tempfail":   {packet('t', ""), outcome{"tempfail", "451 4.7.1 Service unavailable, try again later"}},
		"discard":    {packet('d', ""), outcome{"discard", ""}},
		"shutdown":   {packet('4', ""), outcome{"tempfail", "451 4.7.1 Service closing, try again later"}},
		"conn-fail":  {packet('f', ""), outcome{"tempfail", "451 4.7.1 Service closing, try again later"}},
		"reply":      {packet('y', "554 5.7.7 Spam, 100%% sure\x00"), outcome{"reject", "554 5.7.7 Spam, 100% sure"}},
		"reply 4":    {packet('y', "450 4.2.0 Later\x00"), outcome{"tempfail", "450 4.2.0 Later"}},
		"reply 421":  {packet('y', "421 4.3.2 Bye\x00"), outcome{"tempfail", "451 4.3.2 Bye"}},
		"no code":    {packet('y', "550 No\x00"), outcome{"reject", "550 5.7.1 No"}},
		"multi-line": {packet('y', "550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r\n250 Ok\x00"), outcome{"reject", "550 5.7.1 one two three Ok"}},
		"control":    {packet('y', "550 5.7.1 a\x1bb\xff\u2028c\rd\x00"), outcome{"reject", "550 5.7.1 a?b??c d"}},
		"wrong code": {packet('y', "550 4.7.1 x\x00"), outcome{"reject", "550 5.7.1 x"}},
		"progress":   {packets(packet('p', ""), packet('p', ""), packet('r', "")), outcome{"reject", "550 5.7.1 Message rejected"}},
	}
	for step, code := range map[string]byte{"connect": 'C', "HELO": 'H', "MAIL": 'M', "RCPT": 'R', "DATA": 'T', "header": 'L', "end of header": 'N', "body": 'B', "end of message": 'E'} {
		for name, tt := range all {
			f := newFake(t, agreeable(0x1ff, 0x100000, map[byte][]byte{code: tt.packet}))
			v := verdict(t, configured(t, f.addr, ""), message(small, "bob@example.org"))
			o := v.Outcome
			alone := step == "RCPT" && (tt.want.verdict == "reject" || tt.want.verdict == "tempfail") && name != "shutdown" && name != "conn-fail"
			if alone {
				o = v.PerRecipient[0]
			} else if len(v.PerRecipient) != 0 {
				t.Errorf("%s at %s: for one recipient", name, step)
			}
			got := outcome{o.Action.String(), ""}
			if !o.Status.IsZero() {
				got.text = o.Status.Error()
			}
			if got != tt.want {
				t.Errorf("%s at %s: %+v, want %+v", name, step, got, tt.want)
			}
			if word := strings.Fields(v.Notes["answer"]); !alone && (len(word) == 0 || !strings.HasSuffix(v.Notes["answer"], "at "+step)) {
				t.Errorf("%s at %s: the trace says %q", name, step, v.Notes["answer"])
			}
		}
	}
}

// A milter may say that it has seen enough of the body; that is no verdict.
func TestSkip(t *testing.T) {
	f := newFake(t, agreeable(0x1ff, 0x400, map[byte][]byte{'B': packet('s', ""), 'E': packet('r', "")}))
	m := message("Subject: x\r\n\r\n"+strings.Repeat("0123456789abcde\n", 20000), "bob@example.org")
	if v := verdict(t, configured(t, f.addr, ""), m); v.Action != sdk.ActionReject {
		t.Errorf("%+v", v)
	}
	if got := f.heard("B"); len(got) != 1 {
		t.Errorf("%d pieces", len(got))
	}
}

// Recipients are answered one by one; those refused are not part of the transaction.
func TestRecipients(t *testing.T) {
	n := 0
	f := newFake(t, func(code byte, data []byte) []byte {
		switch {
		case code == 'R' && strings.HasPrefix(string(data), "<no@"):
			return packet('r', "")
		case code == 'R' && strings.HasPrefix(string(data), "<later@"):
			return packet('y', "452 4.2.2 Full\x00")
		case code == 'E':
			n++
			return packets(packet('-', "<no@example.org>\x00"), packet('-', "Yes@Example.org\x00"), packet('-', "<unknown@example.org>\x00"), packet('-', "%%\x00"),
				packet('+', "<new@example.org>\x00"), packet('2', "<par@example.org>\x00NOTIFY=NEVER\x00"), packet('-', "<par@example.org>\x00"), packet('c', ""))
		}
		return agreeable(0x1ff, 0, nil)(code, data)
	})
	p := configured(t, f.addr, "")
	v := verdict(t, p, message(small, "no@example.org", "yes@example.org", "later@example.org", "too@example.org"))
	if v.Action != sdk.ActionContinue || len(v.PerRecipient) != 2 || v.PerRecipient[0].Status.Code != 550 || v.PerRecipient[2].Status.Error() != "452 4.2.2 Full" {
		t.Errorf("%+v", v)
	}
	want := []sdk.Edit{{Kind: sdk.RecipientRemove, Path: mail.MustPath("yes@example.org")}, {Kind: sdk.RecipientAdd, Path: mail.MustPath("new@example.org")},
		{Kind: sdk.RecipientAdd, Path: mail.MustPath("par@example.org")}, {Kind: sdk.RecipientRemove, Path: mail.MustPath("par@example.org")}}
	if d := cmp.Diff(want, v.Edits, cmp.Comparer(func(a, b mail.Path) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if v.Notes["left_out"] == "" || v.Notes["changes"] != "4 of the recipients" {
		t.Errorf("%v", v.Notes)
	}
	v = verdict(t, p, message(small, "no@example.org", "later@example.org"))
	if len(v.PerRecipient) != 2 || n != 1 || v.Notes["answer"] != "no recipient is left" {
		t.Errorf("%+v, %d messages", v, n)
	}
}

// Changes of the header have the effect that they have in Postfix.
func TestHeaderChanges(t *testing.T) {
	const text = "Received: from c by mx.example.org (Postern) with SMTP\r\nReceived: two\r\nReceived: three\r\nX-A: 1\r\nX-A: 2\r\nX-A: 3\r\nSubject: s\r\n\r\nbody\r\n"
	for name, tt := range map[string]struct {
		changes []byte
		want    string
	}{
		"add":                {packet('h', "X-New\x00 v\x00"), strings.Replace(text, "s\r\n\r\n", "s\r\nX-New: v\r\n\r\n", 1)},
		"add without space":  {packet('h', "X-New\x00v\x00"), strings.Replace(text, "s\r\n\r\n", "s\r\nX-New: v\r\n\r\n", 1)},
		"add two spaces":     {packet('h', "X-New\x00  v\x00"), strings.Replace(text, "s\r\n\r\n", "s\r\nX-New:  v\r\n\r\n", 1)},
		"add empty":          {packet('h', "X-New\x00\x00"), strings.Replace(text, "s\r\n\r\n", "s\r\nX-New: \r\n\r\n", 1)},
		"insert at the top":  {packet('i', number(0)+"X-New\x00 v\x00"), "X-New: v\r\n" + text},
		"insert below ours":  {packet('i', number(1)+"X-New\x00 v\x00"), strings.Replace(text, "Received: two", "X-New: v\r\nReceived: two", 1)},
		"insert beyond":      {packet('i', number(100)+"X-New\x00 v\x00"), strings.Replace(text, "s\r\n\r\n", "s\r\nX-New: v\r\n\r\n", 1)},
		"change 2nd":         {packet('m', number(2)+"x-a\x00 v\x00"), strings.Replace(text, "X-A: 2", "x-a: v", 1)},
		"change 0th":         {packet('m', number(0)+"X-A\x00 v\x00"), strings.Replace(text, "X-A: 1", "X-A: v", 1)},
		"change one too far": {packet('m', number(4)+"X-A\x00 v\x00"), strings.Replace(text, "s\r\n\r\n", "s\r\nX-A: v\r\n\r\n", 1)},
		"delete 3rd and 1st": {packets(packet('m', number(3)+"X-A\x00\x00"), packet('m', number(1)+"X-A\x00\x00")), strings.Replace(strings.Replace(text, "X-A: 3\r\n", "", 1), "X-A: 1\r\n", "", 1)},
		"delete 1st twice":   {packets(packet('m', number(1)+"X-A\x00\x00"), packet('m', number(1)+"X-A\x00\x00")), strings.Replace(text, "X-A: 1\r\nX-A: 2\r\n", "", 1)},
		"delete none":        {packet('m', number(1)+"X-None\x00\x00"), text},
		"hidden Received":    {packet('m', number(1)+"Received\x00 v\x00"), strings.Replace(text, "Received: two", "Received: v", 1)},
		"folded":             {packet('i', number(0)+"X-New\x00 a;\n\tb;\r\n c\nd\n\n \ne\n\x00"), "X-New: a;\r\n\tb;\r\n c\r\n\td\r\n\te\r\n" + text},
		"injection":          {packet('h', "X-New\x00 a\r\n\r\nX-Evil: 1\r\rb\x00"), strings.Replace(text, "s\r\n\r\n", "s\r\nX-New: a\r\n\tX-Evil: 1\r\n\tb\r\n\r\n", 1)},
		"8-bit":              {packet('h', "X-New\x00 \xff\xe4\x00"), strings.Replace(text, "s\r\n\r\n", "s\r\nX-New: \xff\xe4\r\n\r\n", 1)},
	} {
		f := newFake(t, agreeable(0x1ff, 0x100000, map[byte][]byte{'E': packets(tt.changes, packet('a', ""))}))
		m := message(text, "bob@example.org")
		v := verdict(t, configured(t, f.addr, ""), m)
		h := m.Header
		if err := sdktest.Apply(v, &h); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// Apply leaves out what the gateway does with a change of a field that is not there.
		for _, e := range v.Edits {
			if e.Kind == sdk.HeaderChange && e.Index >= m.Header.Count(e.Name) {
				h.Append(e.Name, e.Value)
			}
		}
		if d := cmp.Diff(tt.want, string(h.Block())+"body\r\n"); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Changes of all other kinds.
func TestOtherChanges(t *testing.T) {
	ask := func(changes ...[]byte) *sdk.Verdict {
		t.Helper()
		f := newFake(t, agreeable(0x1ff, 0x100000, map[byte][]byte{'E': packets(changes...)}))
		return verdict(t, configured(t, f.addr, ""), message(small, "bob@example.org"))
	}
	goOn := packet('c', "")
	if v := ask(packet('e', "<new@example.org>\x00SIZE=1\x00"), goOn); len(v.Edits) != 1 || v.Edits[0].Path != mail.MustPath("new@example.org") || v.Edits[0].Kind != sdk.ReversePath {
		t.Errorf("%+v", v)
	}
	if v := ask(packet('e', "<>\x00"), goOn); len(v.Edits) != 1 || !v.Edits[0].Path.IsZero() || v.Notes["changes"] != "reverse-path" {
		t.Errorf("%+v", v)
	}
	if v := ask(packet('h', "X\x00 y\x00"), packet('q', "bad\r\nthing\x00"), goOn); v.Action != sdk.ActionQuarantine || v.Reason != "bad  thing" || len(v.Edits) != 1 {
		t.Errorf("%+v", v)
	}
	if v := ask(packet('q', "\x00"), packet('h', "X\x00 y\x00"), packet('r', "")); v.Action != sdk.ActionReject || len(v.Edits) != 0 {
		t.Errorf("%+v", v)
	}
	for name, tt := range map[string]struct {
		pieces []string
		want   string
	}{
		"one":        {[]string{"new\r\nbody\r\n"}, "new\r\nbody\r\n"},
		"two":        {[]string{"new\r", "\nbo", "dy\r\n"}, "new\r\nbody\r\n"},
		"empty":      {[]string{""}, ""},
		"bare":       {[]string{"a\nb\r", "c\r\r\n", "d\r"}, "a\r\nb\r\nc\r\n\r\nd\r\n"},
		"much":       {slices.Repeat([]string{strings.Repeat("0123456789abcd\r\n", 4000)}, 100), strings.Repeat("0123456789abcd\r\n", 400000)},
		"no newline": {[]string{"a", "b"}, "ab"},
	} {
		var all []byte
		for _, s := range tt.pieces {
			all = append(all, packet('b', s)...)
		}
		v := ask(all, packet('i', number(0)+"X\x00 y\x00"), goOn)
		if b, ok := sdktest.Body(t, v); !ok || string(b) != tt.want || !strings.Contains(v.Notes["changes"], "body") {
			t.Errorf("%s: %d bytes, %.60q", name, len(b), b)
		}
	}
}

func TestConfigure(t *testing.T) {
	for settings, want := range map[string]string{
		``:                                                  "address",
		`address = "x"`:                                     "host:port",
		`address = "inet:x:70000"`:                          "not a port",
		`address = "unix:relative"`:                         "absolute path",
		`address = "/x"` + "\nmacro = 1":                    "macro",
		`address = "/x"` + "\ntimeouts.end=0":               "",
		`address = "/x"` + "\ntimeouts.end=\"0s\"":          "timeouts: end",
		`address = "/x"` + "\ntimeouts.body=\"2h\"":         "timeouts: body",
		`address = "/x"` + "\nmacros = {\"\" = \"x\"}":      "macros",
		`address = "/x"` + "\nmacros = {a = \"x\\ny\"}":     "macros",
		`address = "/x"` + "\nskip_headers = [\"a b\"]":     "skip_headers",
		`address = "/x"` + "\nskip_headers = [\"Subject\"]": "OK",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings)})
		if want == "OK" && err != nil || want != "OK" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", settings, err)
		}
	}
	for in, want := range map[string]string{"inet:h:1": "tcp h:1", "h:1": "tcp h:1", "inet:8891@localhost": "tcp localhost:8891", "inet6:1@[::1]": "tcp6 [::1]:1", "inet:[::1]:1": "tcp [::1]:1",
		"unix:/a": "unix /a", "local:/a": "unix /a", "/a": "unix /a"} {
		n, a, err := parseAddress(in)
		if n+" "+a != want || err != nil {
			t.Errorf("%s: %s %s %v", in, n, a, err)
		}
	}
}

// A body in a file is shown in pieces; one that is damaged is not shown as if it were whole.
func TestBodyInFile(t *testing.T) {
	body := strings.Repeat("0123456789abcd\r\n", 10000)
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("xx"+body), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFake(t, agreeable(0, 0x80000, map[byte][]byte{'B': nil}))
	p := configured(t, f.addr, "")
	m := message("Subject: x\r\n\r\n", "bob@example.org")
	m.Body = mail.Body{Path: file, Offset: 2, Size: int64(len(body))}
	verdict(t, p, m)
	got := ""
	for _, piece := range f.heard("B") {
		got += piece[2:]
	}
	if got != body {
		t.Errorf("%d bytes", len(got))
	}
	m.Body.Size++
	if v := verdict(t, p, m); v.Action != sdk.ActionUnscanned {
		t.Errorf("%+v", v)
	}
}

// The deadline of the call ends everything.
func TestDeadline(t *testing.T) {
	for _, code := range []byte("OCHMRTLNBE") {
		f := newFake(t, agreeable(0, 0, map[byte][]byte{code: nil}))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		v, err := configured(t, f.addr, "").Filter(ctx, message(small, "bob@example.org"))
		cancel()
		if err == nil || !strings.Contains(err.Error(), "deadline") {
			t.Errorf("%c: %+v, %v", code, v, err)
		}
	}
}
