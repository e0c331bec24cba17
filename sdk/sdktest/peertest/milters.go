package peertest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// OpenDKIM is a running opendkim, as a milter.
type OpenDKIM struct {
	*Engine
	Address string // host:port
}

// StartOpenDKIM starts one that signs and verifies. The options are further lines of its
// configuration. The files, by name, lie in its folder, which is its working directory.
func StartOpenDKIM(t testing.TB, files map[string]string, options ...string) *OpenDKIM {
	t.Helper()
	program := Program(t, "opendkim")
	o := &OpenDKIM{}
	o.Engine = launch(t, func(e *Engine) {
		e.dir = PrivateFolder(t)
		o.Address = port(t)
		host, number, _ := net.SplitHostPort(o.Address)
		config := filepath.Join(e.dir, "opendkim.conf")
		file(t, config, fmt.Sprintf("Socket inet:%s@%s\nSyslog no\nBackground no\n", number, host)+
			strings.ReplaceAll(strings.Join(options, "\n"), "$DIR", e.dir)+"\n")
		for name, text := range files {
			path := filepath.Join(e.dir, name)
			file(t, path, text)
			if err := os.Chmod(path, 0o600); err != nil { // it refuses keys that others can read
				t.Fatal(err)
			}
		}
		e.command = []string{program, "-f", "-x", config}
		e.address = []string{o.Address}
	})
	return o
}

// PrivateFolder is a folder none of whose parents is writable for everybody, which opendkim
// insists on. It ends with the test.
func PrivateFolder(t testing.TB) string {
	t.Helper()
	parent := "/run"
	if os.Getuid() != 0 {
		var err error
		if parent, err = os.UserCacheDir(); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp(parent, "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// ClamavMilter is a running clamav-milter.
type ClamavMilter struct {
	*Engine
	Socket string // path
}

// StartClamavMilter starts one that asks c. The options are further lines of its configuration.
func StartClamavMilter(t testing.TB, c *Clamd, options ...string) *ClamavMilter {
	t.Helper()
	program := Program(t, "clamav-milter")
	m := &ClamavMilter{}
	m.Engine = launch(t, func(e *Engine) {
		m.Socket = filepath.Join(e.dir, "milter")
		config := filepath.Join(e.dir, "clamav-milter.conf")
		file(t, config, fmt.Sprintf("Foreground yes\nMilterSocket unix:%s\nMilterSocketMode 666\nFixStaleSocket yes\nTemporaryDirectory %s\nClamdSocket unix:%s\n%s\n",
			m.Socket, e.dir, c.Socket, strings.Join(options, "\n")))
		e.command = []string{program, "--config-file=" + config}
		e.address = []string{m.Socket}
	})
	return m
}
