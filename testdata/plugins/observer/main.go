// Command observer writes a line for every event that it is told into a file, and syncs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/postern-mail/postern/sdk"
)

func main() { sdk.Serve(&observer{}, sdk.Manifest{Name: "observer", Version: "1.0"}) }

type observer struct {
	cfg struct {
		File   string `toml:"file"`
		FailIf string `toml:"fail_if"` // while this file is there, nothing is taken; if it says "die", the process ends
	}
}

func (o *observer) Configure(_ context.Context, c sdk.Config) error { return c.Decode(&o.cfg) }

func (o *observer) Observe(_ context.Context, events []sdk.Event) error {
	if how, err := os.ReadFile(o.cfg.FailIf); err == nil {
		if string(how) == "die" {
			os.Exit(3)
		}
		return errors.New("not now")
	}
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%s %s <%s> <%s> copy=%t %d\n", e.Type, e.Family, e.From, e.To, e.Copy, e.Status.Code)
	}
	f, err := os.OpenFile(o.cfg.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(b.String())
	return errors.Join(err, f.Sync(), f.Close())
}
