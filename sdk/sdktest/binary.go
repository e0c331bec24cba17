package sdktest

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest/suite"
)

// Option changes how [Binary] runs a plugin.
type Option func(*suite.Program)

// Settings are the plugin's settings, as TOML, with which it should work.
func Settings(toml string) Option {
	return func(p *suite.Program) { p.Settings = []byte(toml) }
}

// Args are arguments of the program.
func Args(args ...string) Option {
	return func(p *suite.Program) { p.Args = args }
}

// Binary holds the executable of a plugin against the contract, one subtest a check: it
// starts it as the gateway does and asks everything that the gateway would ask, about
// messages of all kinds. See package suite for what it checks. It needs no gateway.
func Binary(t *testing.T, path string, opts ...Option) {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	p := suite.Program{Path: abs}
	for _, o := range opts {
		o(&p)
	}
	suite.Run(t.Context(), p, func(r suite.Result) {
		t.Run(r.Name, func(t *testing.T) {
			if r.Err != nil {
				t.Error(r.Err)
			}
			if r.Note != "" {
				t.Log(r.Note)
			}
		})
	})
}

// Build compiles the program in dir, which is usually ".", and returns its path. The file
// goes with the test.
func Build(t testing.TB, dir string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "plugin")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}
