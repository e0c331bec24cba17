package gateway

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/plugins/arc"
	"github.com/postern-mail/postern/sdk"
)

// isBuiltin reports whether a listed plugin is one of those that come with the gateway.
func isBuiltin(p config.Plugin, name string) bool {
	return cmp.Or(p.Use, p.Name) == name && len(p.Command) == 0
}

// checkOrder refuses an order in which a plugin changes a message that another has signed, or
// seals what nobody has authenticated.
func checkOrder(c *config.Config, host *pluginhost.Host) error {
	return errors.Join(checkSigned(c, host), checkSealed(c, host))
}

func checkSigned(c *config.Config, host *pluginhost.Host) error {
	signer := ""
	for _, p := range c.Plugins {
		f, ok := filterOf(p, host)
		if !ok {
			continue
		}
		m := f.Manifest()
		if signer != "" && !m.Signs && m.May&(sdk.MayEditHeader|sdk.MayReplaceBody) != 0 {
			return fmt.Errorf("plugin %s may change messages after plugin %s has signed them: list %s last", p.Name, signer, signer)
		}
		if m.Signs {
			signer = p.Name
		}
	}
	return nil
}

func checkSealed(c *config.Config, host *pluginhost.Host) error {
	before := make(map[string]bool) // the filters
	for _, p := range c.Plugins {
		if isBuiltin(p, "arc") {
			from, err := arc.ResultsFrom(p.Settings.TOML)
			if err != nil {
				return err
			}
			if !before[from] {
				return fmt.Errorf("plugin %s seals what plugin %s finds out, and %s is not before it: list %s before %s, or name the plugin that authenticates in results_from",
					p.Name, from, from, from, p.Name)
			}
		}
		_, before[p.Name] = filterOf(p, host)
	}
	return nil
}
