package gateway

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/plugins/dkim"
	"github.com/postern-mail/postern/sdk"
)

// Keyrings are the keys of the plugins that sign with dkim.
func Keyrings(c *config.Config) iter.Seq2[*dkim.Keyring, error] {
	return func(yield func(*dkim.Keyring, error) bool) {
		for _, p := range c.Plugins {
			if isBuiltin(p, "dkim") && !yield(dkim.Open(sdk.Config{Settings: p.Settings.TOML, Hostname: c.Hostname.String(), DataDir: c.DataDir, DNSServers: c.DNS.Servers})) {
				return
			}
		}
	}
}

// unsignedTime is how long the DNS is asked for keys.
const unsignedTime = 10 * time.Second

// warnUnsigned names the keys that mail is not signed with because the DNS does not have them, and
// those that it is signed with all the same. Whatever else is wrong with keys is a fault of the plugin's start.
func warnUnsigned(ctx context.Context, c *config.Config, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, unsignedTime)
	defer cancel()
	for ring, err := range Keyrings(c) {
		if err != nil {
			continue
		}
		keys, _ := ring.Status(ctx, nil, true)
		for _, k := range keys {
			switch {
			case k.Fault() && k.Unsigned:
				log.Warn(fmt.Sprintf("mail of %s leaves unsigned until the DNS shows the key %s: see postern dkim status", k.Domain, k.Record.Name))
			case k.Fault():
				log.Warn(fmt.Sprintf("mail of %s is signed with the key %s, which the DNS does not have: see postern dkim status", k.Domain, k.Record.Name))
			}
		}
	}
}
