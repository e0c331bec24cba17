package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foxcpp/go-mockdns"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// dkimpy runs a script with Python's dkim module, which is of another make: name is "arc" or
// "dkim", records are in the place of the DNS. It returns the result in one word, of each message.
func dkimpy(t testing.TB, name string, messages [][]byte, records map[string]string) (results []string) {
	t.Helper()
	const python = "/usr/bin/python3" // the one that Debian packages are for
	if out, err := exec.Command(python, "-c", "import dkim, dns, nacl").CombinedOutput(); err != nil {
		require(t, "the Python modules dkim, dns and nacl are not installed: "+string(out))
	}
	zone, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := json.Marshal(messages)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "verify.py")
	if err := os.WriteFile(script, []byte(`
import sys, json, base64, dkim
zone = json.loads(sys.argv[2])
dns = lambda name, timeout=5: zone.get(name.decode().rstrip('.'), '').encode() or None
def result(wire):
    if sys.argv[1] == 'arc':
        return dkim.arc_verify(wire, dnsfunc=dns)[0].decode()
    d = dkim.DKIM(wire)
    n = sum(1 for name, _ in d.headers if name.lower() == b'dkim-signature')
    return ' '.join('pass' if d.verify(i, dnsfunc=dns) else 'fail' for i in range(n))
json.dump([result(base64.b64decode(wire)) for wire in json.load(sys.stdin)], sys.stdout)
`), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, script, name, string(zone))
	cmd.Stdin = bytes.NewReader(wire)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("dkimpy: %v\n%s", err, err.(*exec.ExitError).Stderr)
	}
	if err := json.Unmarshal(out, &results); err != nil || len(results) != len(messages) {
		t.Fatalf("dkimpy: %v\n%s", err, out)
	}
	return results
}

// Mail that is authenticated, changed and sealed here validates with an implementation of
// another make: the first time, and when it comes through again with the chain that it has.
func TestARC(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	dir := t.TempDir()
	out, code := postern(t, "", "dkim", "keygen", "example.org", "--selector", "arc", "--json", "--config", write(t, dir, basics))
	var r struct{ Name, Value string }
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("keygen: exit code %d\n%s", code, out)
	}
	records := map[string]string{r.Name: r.Value}
	zones, _ := authZones()
	zones[r.Name+"."] = mockdns.Zone{TXT: []string{r.Value}}
	g := startIn(t, dir, unrelayed(sink, dnsServer(t, zones), "[[plugin]]\nname = \"mailauth\"\n"+
		fmt.Sprintf("[[plugin]]\nname = \"banner\"\ncommand = %q\n[plugin.settings]\ndo = [\"change 0 Subject [external] x\", \"body upper\"]\n", program(t, "puppet"))+
		"[[plugin]]\nname = \"arc\"\n[plugin.settings]\ndomain = \"example.org\"\n"))
	g.deliver("ann@pass.test", []string{"bob@example.org"}, "From: Ann <ann@pass.test>\r\nSubject: x\r\n\r\nbody")
	one := string(sink.Wait(t, 1, patience)[0].Data)
	for _, want := range []string{"ARC-Seal: i=1;", "cv=none", "ARC-Message-Signature: i=1;", "ARC-Authentication-Results: i=1; mx.example.org;", "spf=pass", "Subject: [external] x", "BODY"} {
		if !strings.Contains(one, want) {
			t.Errorf("no %s in\n%s", want, one)
		}
	}
	if got := dkimpy(t, "arc", [][]byte{[]byte(one)}, records)[0]; got != "pass" {
		t.Errorf("one set: %s\n%s", got, one)
	}
	// The banner breaks the first message signature, and the new set says that it was whole.
	g.deliver("ann@pass.test", []string{"bob@example.org"}, strings.TrimSuffix(strings.Replace(one, "\r\n\r\nBODY", "\r\nX-List: y\r\n\r\nBODY", 1), "\r\n"))
	two := string(sink.Wait(t, 2, patience)[1].Data)
	if got := dkimpy(t, "arc", [][]byte{[]byte(two)}, records)[0]; got != "pass" || !strings.Contains(two, "ARC-Seal: i=2;") || !strings.Contains(two, "cv=pass") {
		t.Errorf("two sets: %s\n%s", got, two)
	}
	// A chain that arrives broken is sealed as that, once.
	g.deliver("ann@pass.test", []string{"bob@example.org"}, strings.TrimSuffix(strings.Replace(two, "BODY", "OTHER", 1), "\r\n"))
	three := string(sink.Wait(t, 3, patience)[2].Data)
	if !strings.Contains(three, "ARC-Seal: i=3;") || !strings.Contains(three, "cv=fail") {
		t.Errorf("a broken chain:\n%s", three)
	}
	g.deliver("ann@pass.test", []string{"bob@example.org"}, strings.TrimSuffix(three, "\r\n"))
	if four := string(sink.Wait(t, 4, patience)[3].Data); strings.Contains(four, "i=4") {
		t.Errorf("sealed after cv=fail:\n%s", four)
	}
}

// A plugin that changes mail after it was sealed is refused, and one that seals what nobody has
// authenticated.
func TestARCOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := forwarding("example.org", "smtp://192.0.2.1:25") + "[[plugin]]\nname = \"arc\"\n[plugin.settings]\ndomain = \"example.org\"\n[[plugin]]\nname = \"mailauth\"\n"
	file := write(t, dir, config)
	if out, code := postern(t, "", "check", "--config", file); code != 1 || !strings.Contains(out, "postern dkim keygen example.org --selector arc") {
		t.Errorf("no key: exit code %d\n%s", code, out)
	}
	postern(t, "", "dkim", "keygen", "example.org", "--selector", "arc", "--config", file)
	if out, code := postern(t, "", "check", "--config", file); code != 1 || !strings.Contains(out, "list arc last") {
		t.Errorf("order: exit code %d\n%s", code, out)
	}
	const mailauth, seal = "[[plugin]]\nname = \"mailauth\"\n", "[[plugin]]\nname = \"arc\"\n[plugin.settings]\ndomain = \"example.org\"\n"
	for name, tt := range map[string]struct{ plugins, fault string }{
		"mailauth":         {mailauth + seal, ""},
		"no mailauth":      {seal, "FAULT  order of plugins: plugin arc seals what plugin mailauth finds out, and mailauth is not before it: list mailauth before arc, or name the plugin that authenticates in results_from"},
		"another name":     {"[[plugin]]\nname = \"auth\"\nuse = \"mailauth\"\n" + seal, "plugin mailauth finds out"},
		"named":            {"[[plugin]]\nname = \"auth\"\nuse = \"mailauth\"\n" + seal + "results_from = \"auth\"\n", ""},
		"named, not there": {mailauth + seal + "results_from = \"auth\"\n", "list auth before arc"},
		"under a name":     {strings.Replace(seal, "\"arc\"", "\"seal\"\nuse = \"arc\"", 1), "list mailauth before seal"},
	} {
		out, code := postern(t, "", "check", "--config", write(t, dir, forwarding("example.org", "smtp://192.0.2.1:25")+tt.plugins))
		if (code != 0) != (tt.fault != "") || !strings.Contains(out, tt.fault) {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
	}
}
