package peertest

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// Spamd is a running SpamAssassin server. Its only rules are GTUBE (1000), the word "spam-7" in the
// subject (7) and "spam-3" (3); spam begins at 5.
type Spamd struct {
	*Engine
	Address string // host:port
	Socket  string // path
}

// StartSpamd starts one.
func StartSpamd(t testing.TB) *Spamd {
	t.Helper()
	program := Program(t, "spamd")
	s := &Spamd{}
	s.Engine = launch(t, func(e *Engine) {
		s.Address, s.Socket = port(t), filepath.Join(e.dir, "socket")
		file(t, filepath.Join(e.dir, "site", "init.pre"), "loadplugin Mail::SpamAssassin::Plugin::Check\n")
		file(t, filepath.Join(e.dir, "rules", "rules.cf"), spamRules)
		host, number, _ := net.SplitHostPort(s.Address)
		e.command = []string{program, "--local", "--nouser-config", "--syslog=stderr",
			"--siteconfigpath=" + filepath.Join(e.dir, "site"), "--configpath=" + filepath.Join(e.dir, "rules"),
			"--helper-home-dir=" + e.dir, "--pidfile=" + filepath.Join(e.dir, "pid"),
			"--listen=" + host + ":" + number, "--listen=" + s.Socket, "--allowed-ips=127.0.0.1",
			"--min-children=2", "--max-children=4"}
		if os.Getuid() == 0 {
			e.command = append(e.command, "--username=nobody") // it does not run as root
		}
		e.address = []string{s.Address, s.Socket}
	})
	return s
}

const spamRules = `
required_score 5
use_bayes 0
skip_rbl_checks 1
dns_available no
report_safe 0
body GTUBE /XJS\*C4JDBQADN1\.NSBN3\*2IDNEN\*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL\*C\.34X/
score GTUBE 1000
header POSTERN_SEVEN Subject =~ /spam-7/
score POSTERN_SEVEN 7
header POSTERN_THREE Subject =~ /spam-3/
score POSTERN_THREE 3
`
