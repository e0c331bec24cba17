package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/foxcpp/go-mockdns"

	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// The filter benchmark: mail through mailauth, spam (rspamd), antivirus (clamd) and dkim in Postern, and through OpenDKIM,
// rspamd and clamav-milter as milters of Postfix, with the same rspamd and the same clamd, in one run. CPU is that of the
// mail server with its filters; that of the two engines, which do the same in both cases, is given beside it.
//
//	go test -run '^$' -bench Filters -benchtime 1x -v ./cmd/postern
func BenchmarkFilters(b *testing.B) {
	if _, err := os.Stat("/usr/sbin/postfix"); err != nil || os.Getuid() != 0 {
		b.Skip("SKIP: Postfix is not installed, or this is not root")
	}
	rspamd, clamd := peertest.StartRspamd(b), peertest.StartClamd(b)
	for range b.N {
		cost := func(name string, start func(*testing.B, string, string) (string, func())) (server, engines float64) {
			before := rspamd.CPU() + clamd.CPU()
			f := relay(b, name, start)
			n := float64(*benchMessages) / 1000
			server, engines = f.cpu/n, (rspamd.CPU()+clamd.CPU()-before)/n
			b.Logf("%-22s %7.3f ms of CPU a message, and the engines %7.3f  %5.0f msg/s", name, server, engines, f.perSecond)
			return server, engines
		}
		postfix, _ := cost("Postfix", startPostfixForBench)
		milters, theirs := cost("Postfix, three milters", func(b *testing.B, procs, sink string) (string, func()) {
			return startPostfixWithMilters(b, procs, sink, rspamd, clamd)
		})
		postern, _ := cost("Postern", startPosternForBench)
		plugins, ours := cost("Postern, four plugins", func(b *testing.B, procs, sink string) (string, func()) {
			return startWithFilters(b, procs, sink, rspamd, clamd)
		})
		b.Logf("the filters add %.2f ms to Postfix and %.2f ms to Postern, %.2f of it; Postern with them takes %.2f of Postfix with them, %.2f with the engines counted",
			milters-postfix, plugins-postern, (plugins-postern)/(milters-postfix), plugins/milters, (plugins+ours)/(milters+theirs))
		b.ReportMetric(plugins/milters, "postern/postfix")
		b.ReportMetric((plugins+ours)/(milters+theirs), "postern/postfix-with-engines")
		b.ReportMetric(plugins-postern, "ms/filters")
	}
}

// benchKey makes a signing key for example.net, the benchmark's sender, and returns its name and record in the DNS.
func benchKey(b *testing.B, file string) (name, record string) {
	b.Helper()
	out, code := postern(b, "", "dkim", "keygen", "example.net", "--json", "--config", file)
	var r struct{ Name, Value string }
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		b.Fatalf("keygen: exit code %d\n%s", code, out)
	}
	return r.Name, r.Value
}

// startWithFilters starts a gateway with the four plugins, all of which see mail of relay networks.
func startWithFilters(b *testing.B, procs, sink string, rspamd *peertest.Rspamd, clamd *peertest.Clamd) (string, func()) {
	zones := map[string]mockdns.Zone{"example.net.": {TXT: []string{"v=spf1 ip4:127.0.0.0/8 -all"}}, "_dmarc.example.net.": {TXT: []string{"v=DMARC1; p=none"}}}
	dir := b.TempDir()
	config := func(dns string) string {
		return fmt.Sprintf(`
hostname = "mx.example.org"
data_dir = "data"
[log]
format = "json"
[dns]
servers = [%q]
[relay]
networks = ["127.0.0.0/8"]
[[listener]]
address = "127.0.0.1:0"
role = "mx"
tls = "none"
[smarthost]
address = %q
[[plugin]]
name = "mailauth"
origins = ["submitted"]
[[plugin]]
name = "spam"
origins = ["submitted"]
[plugin.settings]
engine = "rspamd"
url = %q
[[plugin]]
name = "antivirus"
origins = ["submitted"]
[plugin.settings]
addresses = ["unix:%s"]
[[plugin]]
name = "dkim"
[plugin.settings]
domains = ["example.net"]
`, dns, sink, rspamd.URL, clamd.Socket)
	}
	file := write(b, dir, config("127.0.0.1:1"))
	name, record := benchKey(b, file)
	zones[name+"."] = mockdns.Zone{TXT: []string{record}}
	file = write(b, dir, config(dnsServer(b, zones)))
	log := newWatchedLog()
	cmd := inGroup(procs, binary, "serve", "--config", file)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line := log.wait(b, "ready", nil)
	return line["listeners"].([]any)[0].(string), func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
}

// startPostfixWithMilters starts a Postfix with OpenDKIM, which signs and verifies, rspamd and clamav-milter.
func startPostfixWithMilters(b *testing.B, procs, sink string, rspamd *peertest.Rspamd, clamd *peertest.Clamd) (string, func()) {
	dir := b.TempDir()
	benchKey(b, write(b, dir, "hostname = \"mx.example.org\"\ndata_dir = \"data\"\n[[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"mx\"\n"))
	keys, err := filepath.Glob(filepath.Join(dir, "data", "dkim", "*.pem"))
	if err != nil || len(keys) == 0 {
		b.Fatalf("no key was made: %v", err)
	}
	key, err := os.ReadFile(keys[0])
	if err != nil {
		b.Fatal(err)
	}
	signer := peertest.StartOpenDKIM(b, map[string]string{"key.pem": string(key)}, "Mode sv", "Domain example.net", "Selector s",
		"KeyFile $DIR/key.pem", "InternalHosts 127.0.0.0/8", "Canonicalization relaxed/relaxed", "Nameservers 127.0.0.1")
	clam := peertest.StartClamavMilter(b, clamd)
	if err := os.WriteFile(procs, fmt.Append(nil, signer.PID()), 0); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(procs, fmt.Append(nil, clam.PID()), 0); err != nil {
		b.Fatal(err)
	}
	p := newPostfix(b, fmt.Sprintf(`
relayhost = [127.0.0.1]:%s
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
smtpd_milters = %s
milter_default_action = tempfail
`, port(sink), strings.Join([]string{"inet:" + signer.Address, "inet:" + rspamd.Milter, "unix:" + clam.Socket}, ", ")))
	p.start(b, procs)
	return p.addr, func() {
		p.stop()
		signer.Stop()
		clam.Stop()
	}
}
