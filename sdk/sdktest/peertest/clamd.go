package peertest

import (
	"encoding/hex"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// Virus is a harmless text that [Clamd] finds, as "Postern.Test.Virus.UNOFFICIAL".
const Virus = "postern-test-virus"

// EICAR is the test file of the anti-virus industry. Clamd finds it as
// "Eicar-Test-Signature.UNOFFICIAL". It is put together here, so that no scanner finds it in
// this source.
func EICAR() string {
	return `X5O!P%@AP[4\PZX54(P^)7CC)7}$` + "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*"
}

// Clamd is a running clamd. It has two signatures, [EICAR] and [Virus], and tells of
// encrypted archives, broken executables, broken pictures and exceeded limits.
type Clamd struct {
	*Engine
	Socket  string // path
	Address string // host:port
}

// StartClamd starts one. The options are further lines of its configuration, such as
// "StreamMaxLength 1M".
func StartClamd(t testing.TB, options ...string) *Clamd {
	t.Helper()
	program := Program(t, "clamd")
	c := &Clamd{}
	c.Engine = launch(t, func(e *Engine) {
		c.Socket, c.Address = filepath.Join(e.dir, "socket"), port(t)
		host, number, _ := net.SplitHostPort(c.Address)
		config := filepath.Join(e.dir, "clamd.conf")
		file(t, config, fmt.Sprintf(clamdConfig, e.dir, number, host)+strings.Join(options, "\n")+"\n")
		file(t, filepath.Join(e.dir, "signatures", "test.ndb"), fmt.Sprintf(
			"Eicar-Test-Signature:0:*:%s\nPostern.Test.Virus:0:*:%s\n", hex.EncodeToString([]byte(EICAR())), hex.EncodeToString([]byte(Virus))))
		e.command = []string{program, "--config-file=" + config}
		e.address = []string{c.Socket, c.Address}
	})
	return c
}

const clamdConfig = `Foreground yes
DatabaseDirectory %[1]s/signatures
TemporaryDirectory %[1]s
LocalSocket %[1]s/socket
LocalSocketMode 666
TCPSocket %[2]s
TCPAddr %[3]s
FixStaleSocket yes
SelfCheck 0
AlertEncrypted yes
AlertBrokenExecutables yes
AlertBrokenMedia yes
AlertExceedsMax yes
`
