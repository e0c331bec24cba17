// Command directory is a directory of users with passwords and of aliases, from its settings.
package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"os"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

func main() {
	sdk.Serve(&directory{}, sdk.Manifest{Name: "directory", Version: "1.0"})
}

type directory struct {
	cfg struct {
		FailIf  string              `toml:"fail_if"` // a file; if it says "die", the process ends
		Users   map[string]string   `toml:"users"`
		Aliases map[string][]string `toml:"aliases"`
		LoginAs string              `toml:"login_as"` // whoever logs in
	}
}

func (d *directory) Configure(_ context.Context, c sdk.Config) error { return c.Decode(&d.cfg) }

func (d *directory) fails() error {
	how, err := os.ReadFile(d.cfg.FailIf)
	if err != nil {
		return nil
	}
	if string(how) == "die" {
		os.Exit(3)
	}
	return errors.New("the server does not answer")
}

func (d *directory) Resolve(_ context.Context, address mail.Path) ([]mail.Path, error) {
	if err := d.fails(); err != nil {
		return nil, err
	}
	local := address.Fold().Local
	if _, ok := d.cfg.Users[local]; ok {
		return []mail.Path{address.Fold()}, nil
	}
	var targets []mail.Path
	for _, t := range d.cfg.Aliases[local] {
		targets = append(targets, mail.MustPath(t))
	}
	return targets, nil
}

func (d *directory) CheckPassword(_ context.Context, login mail.Path, password string) (mail.Path, error) {
	if err := d.fails(); err != nil {
		return mail.Path{}, err
	}
	want, ok := d.cfg.Users[login.Local]
	if subtle.ConstantTimeCompare([]byte(want), []byte(password)) != 1 || !ok {
		return mail.Path{}, nil
	}
	if d.cfg.LoginAs != "" {
		return mail.MustPath(d.cfg.LoginAs), nil
	}
	return login, nil
}
