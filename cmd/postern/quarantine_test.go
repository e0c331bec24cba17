package main_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// quarantined is a line of `quarantine list --json`.
type quarantined struct {
	ID, Family, Plugin, Reason, From, Author, Subject, Header, Text string
	Recipients, Originals                                           []string
	Held, Expires                                                   time.Time
	Scores                                                          map[string]float64
	Notes                                                           map[string]string
}

func (g *gateway) quarantine(args ...string) []quarantined {
	g.t.Helper()
	var all []quarantined
	for d := json.NewDecoder(strings.NewReader(g.must(append([]string{"quarantine", "list", "--json"}, args...)...))); ; {
		var h quarantined
		if err := d.Decode(&h); err == io.EOF {
			return all
		} else if err != nil {
			g.t.Fatal(err)
		}
		all = append(all, h)
	}
}

// holding is a gateway whose plugin "spam" holds what a message's X-Do fields say, and whose
// plugin "after" marks what it sees.
func holding(t testing.TB, sink *sink, more string) string {
	return strangers + exampleTo(sink) + puppet(t, "spam", `origins = ["incoming"]`, "") + puppet(t, "after", `origins = ["incoming"]`, `do = ["insert 0 X-After seen"]`) + more
}

const toBob = "bob@example.org"

// What a plugin wants held is listed, found and shown, with its reason; and nothing else is.
func TestQuarantineListAndShow(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	g := start(t, holding(t, sink, "[quarantine]\nkeep = \"3d\"\n"))
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	head := "From: =?utf-8?q?J=C3=BCrgen?= <j@a.test>\r\nMessage-ID: <needle-1@a.test>\r\n"
	one := c.message("j@a.test", []string{toBob}, head+"Subject: =?utf-8?q?Gro=C3=9Fer?= Gewinn \x1b[31m\r\nX-Do: verdict quarantine\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"+
		"--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe =1B]0;evil=07\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>no</p>\r\n--b--\r\n")
	two := c.message("k@b.test", []string{toBob, "carol@example.org"}, "Subject: two\r\nX-Do: @1 verdict quarantine\r\n\r\nx")
	three := c.message("k@b.test", []string{toBob, "carol@example.org"}, "Subject: three\r\nX-Do: @1 verdict reject\r\n\r\nx")
	c.message("k@b.test", []string{toBob}, "Subject: goes on\r\n\r\nx")
	sink.wait(t, "what is not held", func(m []arrived) bool { return len(m) == 3 })

	for args, want := range map[string][]string{
		"":                                {"Großer Gewinn", "two", "three"},
		"--search needle-1":               {"Großer Gewinn"},
		"--search GROSSER":                nil,
		"--search großer":                 {"Großer Gewinn"},
		"--search " + one:                 {"Großer Gewinn"},
		"--search told":                   {"Großer Gewinn", "two"},
		"--from B.test":                   {"two", "three"},
		"--from jürgen":                   {"Großer Gewinn"},
		"--to carol":                      {"two", "three"},
		"--to nobody":                     nil,
		"--plugin spam":                   {"Großer Gewinn", "two", "three"},
		"--plugin after":                  nil,
		"--since 1h":                      {"Großer Gewinn", "two", "three"},
		"--since 2099-01-01":              nil,
		"--from b.test --search Subject ": nil,
	} {
		var got []string
		for _, h := range g.quarantine(strings.Fields(args)...) {
			got = append(got, strings.TrimSpace(strings.TrimSuffix(h.Subject, "\x1b[31m")))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("list %s: %q, want %q", args, got, want)
		}
	}
	all := g.quarantine()
	if h := all[0]; h.ID != one || h.From != "j@a.test" || h.Author != "Jürgen <j@a.test>" || h.Plugin != "spam" || h.Reason != "plugin spam: told to" || len(h.Recipients) != 1 || h.Recipients[0] != toBob ||
		h.Expires.Sub(h.Held) < 3*24*time.Hour-time.Minute || h.Expires.Sub(h.Held) > 3*24*time.Hour+time.Minute {
		t.Errorf("%+v", h)
	}
	if h := all[1]; h.Family != two || len(h.Recipients) != 1 || h.Recipients[0] != "carol@example.org" {
		t.Errorf("%+v", h)
	}
	if h := all[2]; h.Family != three || !strings.Contains(h.Reason, "550 5.7.1 Refused by puppet") {
		t.Errorf("%+v", h)
	}
	out := g.must("quarantine", "show", one)
	for _, want := range []string{"by spam: plugin spam: told to", "from <j@a.test>", "to <bob@example.org>", "client 127.0.0.1 (client.example.net)", "note spam/MAIL = ", "| X-After: seen", "| Message-ID: <needle-1@a.test>", "| Grüße ?]0;evil?"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	list := g.must("quarantine", "list")
	for _, text := range []string{out, list} {
		if strings.ContainsAny(text, "\x1b\x07") {
			t.Errorf("control characters in %q", text)
		}
	}
	if !strings.Contains(list, "Großer Gewinn") || strings.Count(list, "\n") != 4 {
		t.Errorf("list:\n%s", list)
	}
	for _, args := range [][]string{{"show", "nonsense"}, {"show", "0000000000000"}, {"release", "0000000000000"}, {"release"}, {"list", "--since", "yesterday"}} {
		if out, code := g.run(append([]string{"quarantine"}, args...)...); code == 0 {
			t.Errorf("%v: exit code 0\n%s", args, out)
		}
	}
}

// Mail that an admin holds, and mail that is not held, is out of the quarantine's reach.
func TestQuarantineIsNotTheQueue(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	g := start(t, holding(t, sink, ""))
	id := g.deliver("a@a.test", []string{toBob}, "Subject: x\r\nX-Do: verdict quarantine\r\n\r\nx")
	sink.busy()
	waiting := g.deliver("a@a.test", []string{toBob}, "Subject: waits\r\n\r\nx")
	g.log.wait(t, "deferred", nil)
	g.must("queue", "hold", waiting)
	if all := g.quarantine(); len(all) != 1 || all[0].ID != id {
		t.Errorf("listed: %v", all)
	}
	for _, command := range []string{"show", "release", "delete", "allow-sender"} {
		if out, code := g.run("quarantine", command, waiting); code != 1 || !strings.Contains(out, "not in quarantine") {
			t.Errorf("%s: exit code %d\n%s", command, code, out)
		}
	}
	if out, code := g.run("quarantine", "delete", id, waiting); code != 1 || len(g.quarantine()) != 1 {
		t.Errorf("one of two is none, exit code %d, and the other is gone\n%s", code, out)
	}
	if out := g.must("quarantine", "delete", id); out != "delete: 1 recipient\n" {
		t.Error(out)
	}
	if q := g.queue(); len(q) != 1 || q[0].ID != waiting || q[0].State != "held" {
		t.Errorf("queue %v", q)
	}
	sink.open()
	g.must("queue", "release", waiting)
	got := sink.wait(t, "what was released", func(m []arrived) bool { return len(m) > 0 })
	if len(got) != 1 || !strings.Contains(got[0].Data, "Subject: waits") {
		t.Errorf("arrived: %v", got)
	}
}

// Released mail goes on byte for byte, so that a signature stays valid, without being shown
// to the plugins again; it does so over a death of the gateway, and without one that runs.
func TestQuarantineRelease(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	config := strings.Replace(holding(t, sink, ""), "[plugin.settings]\n", "[plugin.settings]\ndo = [\"verdict quarantine\"]\n", 1)
	config = strings.Replace(config, `do = ["insert 0 X-After seen"]`, "", 1)
	g := start(t, config)
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	sign := func(text string) string {
		var b bytes.Buffer
		if err := dkim.Sign(&b, strings.NewReader(text), &dkim.SignOptions{Domain: "a.test", Selector: "s", Signer: key, HeaderKeys: []string{"From", "Subject"},
			HeaderCanonicalization: dkim.CanonicalizationSimple, BodyCanonicalization: dkim.CanonicalizationSimple}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	verify := func(m arrived, sent string) {
		t.Helper()
		if got := whole(t, m); got != sent {
			t.Errorf("arrived:\n%q\nsent:\n%q", got, sent)
		}
		v, err := dkim.VerifyWithOptions(strings.NewReader(m.Data), &dkim.VerifyOptions{LookupTXT: func(string) ([]string, error) {
			return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))}, nil
		}})
		if err != nil || len(v) != 1 || v[0].Err != nil {
			t.Errorf("signature: %v, %+v", err, v)
		}
	}
	small := sign("From:  a@a.test\r\nSubject:  small \r\n folded\r\n\r\n dot\r\n\r\ntail  \r\n")
	large := sign("From: a@a.test\r\nSubject: large\r\n\r\n" + strings.Repeat("A large body.\r\n", 10_000))
	texts := []string{small, large, sign("From: a@a.test\r\nSubject: killed\r\n\r\nx\r\n"), sign("From: a@a.test\r\nSubject: stopped\r\n\r\nx\r\n")}
	var ids []string
	for _, text := range texts {
		ids = append(ids, g.deliver("a@a.test", []string{toBob, "carol@example.org"}, strings.TrimSuffix(text, "\r\n")))
	}
	if len(g.quarantine()) != 4 || len(sink.mail()) > 0 {
		t.Fatalf("held: %v", g.quarantine())
	}
	asked := g.log.count("plugin", nil)
	if out := g.must("quarantine", "release", ids[0], ids[1]); out != "release: 4 recipients\n" {
		t.Error(out)
	}
	got := sink.wait(t, "two", func(m []arrived) bool { return len(m) == 2 })
	for _, m := range got {
		if len(m.To) != 2 || m.From != "a@a.test" {
			t.Errorf("envelope %s %s", m.From, m.To)
		}
		verify(m, map[bool]string{true: large, false: small}[len(m.Data) > 10_000])
	}
	if n := g.log.count("plugin", nil); n != asked {
		t.Errorf("plugins were asked %d times more", n-asked)
	}
	if out, code := g.run("quarantine", "release", ids[0]); code != 1 {
		t.Errorf("a second release: exit code %d\n%s", code, out)
	}

	sink.busy() // what is released now cannot be delivered in this life
	g.must("quarantine", "release", ids[2])
	g.kill()
	sink.open()
	g = startIn(t, g.dir, config)
	got = sink.wait(t, "three", func(m []arrived) bool { return len(m) == 3 })
	verify(got[2], texts[2])
	g.stop()
	if out, code := postern(t, "", "quarantine", "release", ids[3], "--config", g.file); code != 0 {
		t.Fatal(out)
	}
	g = startIn(t, g.dir, config)
	got = sink.wait(t, "four", func(m []arrived) bool { return len(m) == 4 })
	verify(got[3], texts[3])
	g.drained()
}

// What a plugin refused for one recipient, after another was accepted, goes on with the
// plugins that have not seen it.
func TestQuarantineReleaseRunsTheRest(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	g := start(t, strangers+exampleTo(sink)+puppet(t, "spam", `origins = ["incoming"]`, "")+fmt.Sprintf("[[plugin]]\nname = \"av\"\ncommand = %q\n", program(t, "scanner")))
	id := g.deliver("a@a.test", []string{toBob, "carol@example.org"}, "Subject: x\r\nX-Do: @1 verdict reject\r\n\r\nx")
	sink.wait(t, "bob's", func(m []arrived) bool { return len(m) == 1 })
	g.must("quarantine", "release", id)
	got := sink.wait(t, "carol's", func(m []arrived) bool { return len(m) == 2 })
	if got[1].To[0] != "carol@example.org" || strings.Count(got[1].Data, "X-Scanned: yes") != 1 {
		t.Errorf("arrived: %+v", got[1])
	}
	g.drained()
}

// A sender that is allowed is said to be so to the plugins, for those recipients that want
// him; a forged one is not, where mailauth looks.
func TestQuarantineAllowSender(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	zones, _ := authZones()
	g := start(t, strings.Replace(strangers, "127.0.0.0/8", "192.0.2.0/24", 1)+exampleTo(sink)+fmt.Sprintf("[dns]\nservers = [%q]\n", dnsServer(t, zones))+
		"[[plugin]]\nname = \"mailauth\"\n"+puppet(t, "spam", `origins = ["incoming"]`, "tell = true"))
	allowed := func(m arrived) string {
		for line := range strings.SplitSeq(m.Data, "\r\n") {
			if v, ok := strings.CutPrefix(line, "X-Notes: postern/allowed: "); ok {
				return m.From + " " + v
			}
		}
		return m.From + " -"
	}
	n := 0
	told := func(from string, to ...string) string {
		t.Helper()
		n++
		g.deliver(from, to, "From: "+from+"\r\nSubject: x\r\n\r\nx")
		return allowed(sink.wait(t, fmt.Sprint(n), func(m []arrived) bool { return len(m) == n })[n-1])
	}
	want := func(what, got string) {
		t.Helper()
		if got != what {
			t.Errorf("told %q, want %q", got, what)
		}
	}
	for _, from := range []string{"news@pass.test", "news@none.test"} {
		want(from+" -", told(from, toBob))
		id := g.deliver(from, []string{toBob}, "From: "+from+"\r\nX-Do: verdict quarantine\r\n\r\nx")
		out := g.must("quarantine", "allow-sender", id)
		warned := strings.Contains(out, "\nnote: mailauth found nothing")
		if !strings.HasPrefix(out, "allowed: "+from+" for "+toBob+"\n") || !strings.HasSuffix(out, "\nrelease: 1 recipient\n") || warned != (from == "news@none.test") {
			t.Error(out)
		}
		n++
		sink.wait(t, "what was released", func(m []arrived) bool { return len(m) == n })
	}
	want("news@pass.test 0", told("news@pass.test", toBob))
	want("News@pass.test 1", told("News@PASS.test", "carol@example.org", toBob))
	want("other@pass.test -", told("other@pass.test", toBob))
	want("news@none.test -", told("news@none.test", toBob)) // SPF says that it is forged
	bounce := g.deliver("", []string{toBob}, "X-Do: verdict quarantine\r\n\r\nx")
	if out, code := g.run("quarantine", "allow-sender", bounce); code != 1 || !strings.Contains(out, "null reverse-path") || len(g.quarantine()) != 1 {
		t.Errorf("a bounce: exit code %d\n%s", code, out)
	}
	id := g.deliver("list-77@pass.test", []string{toBob}, "X-Do: verdict quarantine\r\n\r\nx")
	g.must("quarantine", "allow-sender", id, "--sender-domain", "--for-domain")
	n++
	sink.wait(t, "the list's", func(m []arrived) bool { return len(m) == n })
	want("list-78@pass.test 0,1", told("list-78@pass.test", "carol@example.org", "dave@example.org"))
	list := g.must("quarantine", "allowed", "list")
	if strings.Count(list, "\n") != 4 || !strings.Contains(list, "@example.org") {
		t.Errorf("list:\n%s", list)
	}
	g.must("quarantine", "allowed", "remove", "@pass.test", "@example.org")
	if out, code := g.run("quarantine", "allowed", "remove", "@pass.test", "@example.org"); code != 1 {
		t.Errorf("a second time: exit code %d\n%s", code, out)
	}
	out, code := postern(t, "From: news@pass.test\n\nx", "try", "-", "--from", "news@pass.test", "--to", toBob, "--client", "127.0.0.1", "--config", g.file)
	if code != 0 || !strings.Contains(out, "+ X-Notes: postern/allowed: 0") {
		t.Errorf("try: exit code %d\n%s", code, out)
	}
}

// Recipients hear once a day what is held for them, also when the gateway was not running
// at the time of day.
func TestQuarantineDigest(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	at := func(clock string) string {
		return holding(t, sink, "[quarantine]\ndigest = \"daily\"\ndigest_time = \""+clock+"\"\n")
	}
	// Where it is about noon: a day has one digest, and must not end meanwhile.
	east := 12 - time.Now().UTC().Hour()
	zone, err := time.LoadLocation(fmt.Sprintf("Etc/GMT%+d", -east))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(clock string) *gateway {
		g := launch(t, dir, at(clock), "env", "TZ="+zone.String())
		g.ready()
		return g
	}
	g := run("23:59:59")
	id := g.deliver("spammer@a.test", []string{toBob}, "From: S <spammer@a.test>\r\nSubject: =?utf-8?q?K=C3=A4se?=\r\nX-Do: verdict quarantine\r\n\r\nx")
	h := g.quarantine()[0].Held
	g.stop()
	clock := h.In(zone).Add(time.Second).Format(time.TimeOnly) // it has whole seconds; perhaps not yet
	for range 2 {
		g = run(clock)
		got := sink.wait(t, "the digest", func(m []arrived) bool { return len(m) > 0 })
		m, err := netmail.ReadMessage(strings.NewReader(got[0].Data))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(quotedprintable.NewReader(m.Body))
		if got[0].From != "" || len(got[0].To) != 1 || got[0].To[0] != toBob || m.Header.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(string(body), id) || !strings.Contains(string(body), "Käse") {
			t.Errorf("digest %+v\n%s", got[0], body)
		}
		g.stop()
		if n := len(sink.mail()); n != 1 {
			t.Errorf("%d digests", n)
		}
	}
}
