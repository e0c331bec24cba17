package main_test

import (
	"bytes"
	"crypto"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
)

const (
	falseClaims = "X-Spam-Flag: NO\r\nx-spam-status: No, score=-100\r\nX-Scanned: yes\r\nX-Virus-Status: Clean\r\nX-Attachments-Removed: 0\r\nX-External: no\r\nReceived-SPF: pass\r\n"
	claimedMail = falseClaims + "X-Kept: as it is\r\n" + letterHead + "\r\ntext\r\n"
)

// arrivedTop is what stands above the fields that the sender wrote.
func arrivedTop(t testing.TB, m []byte, sent string) string {
	t.Helper()
	top, ok := strings.CutSuffix(string(m), sent)
	_, top, found := strings.Cut(top, "Received: from client.example.net")
	if !ok || !found {
		t.Fatalf("arrived:\n%s", m)
	}
	before, _, _ := strings.Cut(string(m), "Received: from client.example.net")
	// What follows the date of our Received field.
	_, rest, _ := strings.Cut(top, ";\r\n\t")
	_, rest, _ = strings.Cut(rest, "\r\n")
	return before + rest
}

// Where a plugin cannot look and the message goes on, the next hop finds no field in which a
// stranger says that it has: of each plugin that does so, and however it fails.
func TestH03ForgedFieldsWithoutPlugin(t *testing.T) {
	t.Parallel()
	kept := "X-Kept: as it is\r\n" + letterHead + "\r\ntext\r\n"
	without := func(gone ...string) string {
		left := falseClaims
		for _, line := range gone {
			left = strings.Replace(left, line+"\r\n", "", 1)
		}
		return left + kept
	}
	spam := without("X-Spam-Flag: NO", "x-spam-status: No, score=-100")
	for name, tt := range map[string]struct {
		plugin, settings string
		text, want, why  string
		after            func(g *gateway)
	}{
		"spam, engine down":   {"spam", fmt.Sprintf("url = \"http://%s\"", deadEnd(t)), claimedMail, spam, "error", nil},
		"spam, killed":        {"spam", "", claimedMail, spam, "timeout", func(g *gateway) { g.stopPlugin("spam") }},
		"spam, disabled":      {"spam", "", claimedMail, spam, "down", func(g *gateway) { g.must("plugin", "disable", "spam") }},
		"antivirus disabled":  {"antivirus", "", claimedMail, without("X-Virus-Status: Clean"), "down", func(g *gateway) { g.must("plugin", "disable", "antivirus") }},
		"attachments off":     {"attachments", "", claimedMail, without("X-Attachments-Removed: 0"), "down", func(g *gateway) { g.must("plugin", "disable", "attachments") }},
		"banner disabled":     {"banner", "mail = \"incoming\"\nheader = true", claimedMail, without("X-External: no"), "down", func(g *gateway) { g.must("plugin", "disable", "banner") }},
		"banner without mark": {"banner", "mail = \"incoming\"\nsubject_prefix = \"E\"", claimedMail, claimedMail, "down", func(g *gateway) { g.must("plugin", "disable", "banner") }},
		"mailauth disabled":   {"mailauth", "", claimedMail, without("Received-SPF: pass"), "down", func(g *gateway) { g.must("plugin", "disable", "mailauth") }},
		"milter away":         {"milter", fmt.Sprintf("address = %q\nowns = [\"X-Spam*\"]", deadEnd(t)), claimedMail, spam, "not reachable", nil},
		"smtpfilter disabled": {"smtpfilter", fmt.Sprintf("address = %q\nowns = [\"X-Spam*\"]", deadEnd(t)), claimedMail, spam, "down", func(g *gateway) { g.must("plugin", "disable", "smtpfilter") }},
		"large": {"spam", "max_size = \"128KiB\"\noversize = \"unscanned\"", claimedMail + strings.Repeat("0123456789abcde\r\n", 20_000),
			spam + strings.Repeat("0123456789abcde\r\n", 20_000), "too large", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := smtptest.New(t, smtptest.Options{})
			config := theirs(filtered(sink, tt.plugin, "timeout = \"2s\"\non_failure = \"accept\"", tt.settings))
			if tt.plugin == "smtpfilter" {
				config += "[[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"reinjection\"\n"
			}
			g := start(t, config)
			if tt.after != nil {
				tt.after(g)
			}
			if code, reply := g.offer(tt.text, "bob@example.org"); code != 250 {
				t.Fatalf("%d %s", code, reply)
			}
			top := arrivedTop(t, sink.Wait(t, 1, patience)[0].Data, tt.want)
			if !strings.HasPrefix(top, "X-Postern-Unscanned: "+tt.plugin+" (") || !strings.Contains(top, tt.why) || strings.Count(top, "\r\n") != 1 {
				t.Errorf("above what the sender wrote stands %q", top)
			}
		})
	}
}

// stopPlugin makes a plugin hang, until the gateway kills it.
func (g *gateway) stopPlugin(name string) {
	g.t.Helper()
	line := g.log.wait(g.t, "plugin started", has("plugin", name))
	if err := syscall.Kill(pidOf(line), syscall.SIGSTOP); err != nil {
		g.t.Fatal(err)
	}
}

// A message that waits for a plugin keeps what those before it have added, of the same name too;
// what it brought along goes when the plugin is back. The trace says who removed it.
func TestH03ForgedFieldsOfParkedMail(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	keys := "origins = [\"incoming\"]"
	g := start(t, strangers+exampleTo(sink)+
		puppet(t, "first", keys, `do = ["insert 0 X-Spam-Flag first"]`+"\nowns = [\"X-Spam-Flag\"]")+
		puppet(t, "second", keys+"\non_failure = \"park\"", `do = ["insert 0 X-Spam-Flag second"]`+"\nowns = [\"X-Spam*\"]")+
		puppet(t, "third", keys, `do = ["insert 0 X-Third yes"]`))
	g.must("plugin", "disable", "second")
	if code, reply := g.offer(claimedMail, "bob@example.org"); code != 250 {
		t.Fatalf("%d %s", code, reply)
	}
	eventually(t, "the message waits", func() bool { q := g.queue(); return len(q) == 1 && q[0].State == "parked" })
	g.must("plugin", "enable", "second")
	m := sink.wait(t, "what waited", func(m []arrived) bool { return len(m) > 0 })[0]
	h, _ := mail.SplitMessage([]byte(m.Data))
	if got := strings.Join(h.Values("X-Spam-Flag"), " "); got != "second first" || h.Has("X-Spam-Status") || h.Get("X-Third") != "yes" || h.Get("X-Scanned") != "yes" {
		t.Errorf("arrived:\n%s", h.Block())
	}
	g.log.wait(t, "plugin", func(line map[string]any) bool {
		return line["plugin"] == "second" && strings.HasPrefix(fmt.Sprint(line["reason"]), "removed what the message brought: x-spam-status;")
	})
	if out := g.must("plugin", "status", "second"); !strings.Contains(out, "\n  owns        X-Spam*\n") {
		t.Errorf("status:\n%s", out)
	}
	// A held message is released as our plugins have made it.
	held := strings.Replace(claimedMail, "X-Kept", "X-Do: verdict quarantine\r\nX-Kept", 1)
	if code, reply := g.offer(held, "bob@example.org"); code != 250 {
		t.Fatalf("%d %s", code, reply)
	}
	eventually(t, "the message is held", func() bool { return len(g.quarantine()) == 1 })
	g.must("quarantine", "release", g.queue()[0].ID)
	m = sink.wait(t, "what was held", func(m []arrived) bool { return len(m) > 1 })[1]
	h, _ = mail.SplitMessage([]byte(m.Data))
	if got := strings.Join(h.Values("X-Spam-Flag"), " "); got != "second first" || h.Has("X-Spam-Status") {
		t.Errorf("released:\n%s", h.Block())
	}
}

// A signature over such a field is verified before the field goes, whatever the plugin behind
// makes of the message.
func TestForgedFieldsAreSigned(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	zones, key := authZones()
	g := start(t, unrelayed(sink, dnsServer(t, zones), "[[plugin]]\nname = \"mailauth\"\n[[plugin]]\nname = \"spam\"\non_failure = \"accept\"\n[plugin.settings]\n"+
		fmt.Sprintf("url = \"http://%s\"\n", deadEnd(t))))
	var signed bytes.Buffer
	err := dkim.Sign(&signed, strings.NewReader("X-Spam-Flag: NO\r\nFrom: ann@reject.test\r\nSubject: x\r\n\r\ntext\r\n"),
		&dkim.SignOptions{Domain: "reject.test", Selector: "s1", Signer: crypto.Signer(key), HeaderKeys: []string{"From", "X-Spam-Flag"}})
	if err != nil {
		t.Fatal(err)
	}
	if code, reply := g.offer(signed.String(), "bob@example.org"); code != 250 {
		t.Fatalf("%d %s", code, reply)
	}
	h, _ := mail.SplitMessage(sink.Wait(t, 1, patience)[0].Data)
	if results := h.Get("Authentication-Results"); !strings.Contains(results, "dkim=pass") || !strings.Contains(results, "dmarc=pass") || h.Has("X-Spam-Flag") || !h.Has("X-Postern-Unscanned") {
		t.Errorf("arrived:\n%s", h.Block())
	}
}

// try shows who removes what, and check says what nobody may own.
func TestTryAndCheckOwnedFields(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	config := strangers + exampleTo(sink) + puppet(t, "first", "", "") + puppet(t, "second", "on_failure = \"accept\"", "fail = true\nowns = [\"X-Spam*\"]")
	a := attemptWith(t, config)
	r := a.one(strings.ReplaceAll(claimedMail, "\r\n", "\n"), "--from", "a@example.net", "--to", "bob@example.org")
	if p := r.Plugins; len(p) != 2 || *p[0].Changed || !*p[1].Changed || *p[1].Verdict != "unscanned" {
		t.Errorf("plugins %+v", p)
	}
	for _, f := range r.Headers {
		if strings.HasPrefix(strings.ToLower(f[0]), "x-spam") {
			t.Errorf("left: %q", f)
		}
	}
	a = attemptWith(t, strings.Replace(config, "X-Spam*", "Subj*", 1))
	if out, code := postern(t, "", "check", "--config", a.file); code == 0 || !strings.Contains(out, `it cannot own the header field "Subj*": subject is not for a plugin to own`) {
		t.Errorf("check: %d\n%s", code, out)
	}
}
