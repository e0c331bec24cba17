package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// textServer is a DNS server whose texts the test changes while it runs.
type textServer struct {
	sync.Mutex
	addr  string
	texts map[string]string
}

func newTextServer(t testing.TB) *textServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &textServer{addr: conn.LocalAddr().String(), texts: make(map[string]string)}
	server := &dns.Server{PacketConn: conn, Handler: s}
	go server.ActivateAndServe()
	t.Cleanup(func() { server.Shutdown() })
	return s
}

// ServeDNS answers a question.
func (s *textServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.Lock()
	defer s.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	text, ok := s.texts[strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))]
	if !ok {
		m.Rcode = dns.RcodeNameError
	} else if q.Question[0].Qtype == dns.TypeTXT {
		rr := &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}}
		for ; len(text) > 255; text = text[255:] {
			rr.Txt = append(rr.Txt, text[:255])
		}
		rr.Txt = append(rr.Txt, text)
		m.Answer = append(m.Answer, rr)
	}
	w.WriteMsg(m)
}

func (s *textServer) publish(name, value string) {
	s.Lock()
	defer s.Unlock()
	s.texts[name] = value
}

// published is the configuration of a DNS that has these texts, and nothing else.
func published(t testing.TB, texts map[string]string) string {
	t.Helper()
	s := newTextServer(t)
	maps.Copy(s.texts, texts)
	return fmt.Sprintf("[dns]\nservers = [%q]\nclient_names = false\n", s.addr)
}

// keyLine is a line of `dkim status --json`.
type keyLine struct {
	Domain, Selector, Algorithm, State, DNS string
	Unsigned                                bool
	Record                                  struct{ Name, Value string }
}

func keyLines(t testing.TB, out string) []keyLine {
	t.Helper()
	var all []keyLine
	for line := range strings.Lines(out) {
		var k keyLine
		if !strings.HasPrefix(line, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(line), &k); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		all = append(all, k)
	}
	return all
}

// said is a condition for wait: a plugin has logged this about a name.
func said(text, name string) func(map[string]any) bool {
	return func(line map[string]any) bool {
		fields, _ := line["fields"].(map[string]any)
		return line["text"] == text && fields["name"] == name
	}
}

// A domain with an RSA and an Ed25519 key gets new ones while mail flows. At each moment
// what leaves has both signatures, and verifies with keys that the DNS had at that moment.
func TestDKIMRotation(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	zone := newTextServer(t)
	config := forwarding("elsewhere.test", "smtp://"+sink.Addr()) + fmt.Sprintf("[dns]\nservers = [%q]\n", zone.addr) + `
[[plugin]]
name = "signing"
use = "dkim"
[plugin.settings]
domains = ["example.org"]
selectors = ["rsa", "ed"]
check_interval = "1s"
`
	dir := t.TempDir()
	file := write(t, dir, config)
	for selector, algorithm := range map[string]string{"rsa": "rsa", "ed": "ed25519"} {
		out, code := postern(t, "", "dkim", "keygen", "example.org", "--selector", selector, "--algorithm", algorithm, "--json", "--config", file)
		var r struct{ Name, Value string }
		if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
			t.Fatalf("keygen: exit code %d\n%s", code, out)
		}
		zone.publish(r.Name, r.Value)
	}
	g := startIn(t, dir, config)
	folder := peertest.PrivateFolder(t)
	send := func(selectors ...string) {
		t.Helper()
		n := len(sink.Messages())
		swaksOK(t, g.addr[0], "--from", "alice@example.org", "--to", "bob@elsewhere.test")
		m := sink.Wait(t, n+1, patience)[n].Data
		for _, s := range selectors {
			if !bytes.Contains(bytes.ReplaceAll(m, []byte("\r\n\t"), []byte(" ")), []byte(" s="+s+";")) {
				t.Errorf("not signed with %s:\n%.900s", s, m)
			}
		}
		zone.Lock()
		defer zone.Unlock()
		if got := dkimpy(t, "dkim", [][]byte{m}, zone.texts)[0]; got != "pass pass" {
			t.Errorf("dkimpy: %s\n%s", got, m)
		}
		rsa := filepath.Join(folder, selectors[0])
		if err := os.WriteFile(rsa, bytes.ReplaceAll(m, []byte("\r\n"), []byte("\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		openDKIM(t, folder, []string{rsa}, selectors[0], zone.texts)
	}
	send("rsa", "ed")

	next := keyLines(t, g.must("dkim", "rotate", "example.org", "--json"))
	if len(next) != 2 || next[0].State != "waiting" || next[0].DNS != "missing" || next[0].Algorithm != "rsa-sha256" || next[1].Algorithm != "ed25519-sha256" {
		t.Fatalf("%+v", next)
	}
	if out := g.must("dkim", "rotate", "example.org"); !strings.Contains(out, next[0].Record.Name+". IN TXT") || !strings.Contains(out, "does not show it yet") {
		t.Errorf("rotate: %s", out)
	}
	g.log.wait(t, "plugin log", said("the dns does not have a dkim key: publish what postern dkim status prints", next[0].Record.Name))
	send("rsa", "ed")
	if out := g.must("dkim", "status"); !strings.Contains(out, "waiting") || !strings.Contains(out, next[1].Record.Value) {
		t.Errorf("status: %s", out)
	}

	zone.publish(next[0].Record.Name, next[0].Record.Value)
	g.log.wait(t, "plugin log", said("signing with a new dkim key", next[0].Record.Name))
	send(next[0].Selector, "ed")
	zone.publish(next[1].Record.Name, next[1].Record.Value)
	g.log.wait(t, "plugin log", said("signing with a new dkim key", next[1].Record.Name))
	send(next[0].Selector, next[1].Selector)
	// A new process knows it from the start, without the DNS.
	g.stop()
	g = startIn(t, dir, config)
	send(next[0].Selector, next[1].Selector)
	states := make(map[string]int)
	for _, k := range keyLines(t, g.must("dkim", "list", "--json")) {
		states[k.State]++
	}
	if states["signing"] != 2 || states["overlap"] != 2 {
		t.Errorf("%v", states)
	}

	// Keys that the DNS does not have are a fault that status reports.
	zone.Lock()
	clear(zone.texts)
	zone.Unlock()
	if out, code := g.run("dkim", "status"); code != 1 || !strings.Contains(out, "Publish this record") || !strings.Contains(out, "the DNS does not have") {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	if out, code := g.run("dkim", "rotate", "example.com"); code != 1 || !strings.Contains(out, "not in the settings") {
		t.Errorf("rotate: exit code %d\n%s", code, out)
	}
}

// A domain's first key: mail passes unsigned while the DNS does not have it, which everybody is
// told; once it is there signing begins by itself.
func TestDKIMFirstKey(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	zone := newTextServer(t)
	dir := t.TempDir()
	config := forwarding("elsewhere.test", "smtp://"+sink.Addr()) + fmt.Sprintf("[dns]\nservers = [%q]\n", zone.addr) +
		"[[plugin]]\nname = \"dkim\"\n[plugin.settings]\ndomains = [\"example.org\"]\ncheck_interval = \"1s\"\n"
	file := write(t, dir, config)
	if out, code := postern(t, "", "dkim", "keygen", "example.org", "--config", file); code != 0 || !strings.Contains(out, "Signing begins when the DNS shows the record") {
		t.Errorf("keygen: exit code %d\n%s", code, out)
	}
	g := startIn(t, dir, config)
	send := func() []byte {
		t.Helper()
		n := len(sink.Messages())
		swaksOK(t, g.addr[0], "--from", "alice@example.org", "--to", "bob@elsewhere.test")
		return sink.Wait(t, n+1, patience)[n].Data
	}
	if m := send(); bytes.Contains(m, []byte("DKIM-Signature")) {
		t.Errorf("signed:\n%s", m)
	}
	name := "postern._domainkey.example.org"
	g.log.wait(t, "plugin log", said("mail is not signed until the dns has the dkim key: publish what postern dkim status prints", name))
	if out := g.must("check"); !strings.Contains(out, "warn   mail of example.org leaves unsigned until the DNS shows the key "+name) {
		t.Errorf("check: %s", out)
	}
	if out, code := g.run("dkim", "status"); code != 1 || !strings.Contains(out, "Mail of example.org leaves unsigned until the DNS shows "+name) || !strings.Contains(out, "mail leaves unsigned: the DNS does not have the key") {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	out, _ := g.run("dkim", "status", "--json")
	keys := keyLines(t, out)
	if len(keys) != 1 || keys[0].State != "waiting" || !keys[0].Unsigned {
		t.Fatalf("%+v", keys)
	}
	if out := g.must("dkim", "list"); !strings.Contains(out, "waiting") {
		t.Errorf("list: %s", out)
	}
	zone.publish(name, keys[0].Record.Value)
	g.log.wait(t, "plugin log", said("the dns shows a dkim key", name))
	verified(t, "message", send(), "example.org", "rsa-sha256", map[string]string{name: keys[0].Record.Value})
	if out := g.must("check"); strings.Contains(out, "unsigned") {
		t.Errorf("check: %s", out)
	}
}

// Without the plugin the commands say what to do.
func TestDKIMCommandsWithoutPlugin(t *testing.T) {
	t.Parallel()
	file := write(t, t.TempDir(), basics)
	for _, command := range []string{"list", "status", "rotate example.org"} {
		out, code := postern(t, "", append(append([]string{"dkim"}, strings.Fields(command)...), "--config", file)...)
		if code != 1 || !strings.Contains(out, "not configured") {
			t.Errorf("%s: exit code %d\n%s", command, code, out)
		}
	}
}
