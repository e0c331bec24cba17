package sdk

import (
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// Config is what the host tells a plugin when it configures it.
type Config struct {
	// Settings is the plugin's table of the configuration, as TOML.
	Settings []byte
	// Hostname is the gateway's name, Postmaster the address of its postmaster.
	Hostname   string
	Postmaster string
	// DataDir is the gateway's data directory, absolute. First-party plugins keep their
	// data below it.
	DataDir string
	// DNSServers are the resolvers that the gateway asks, "host:port", tried in order; none:
	// the system's. Plugins that ask the DNS use them as well.
	DNSServers []string
	// Host is how the plugin asks the gateway for something; nil in tests that give none.
	Host *Host
}

// Decode decodes the settings into the struct that v points to. Fields that the settings
// do not mention keep their values: set the defaults before. A key without a field and a
// value of the wrong type are errors that name the key. A time.Duration is written "30s", "4h"
// or "5d".
func (c Config) Decode(v any) error {
	settings, err := readable(c.Settings, v)
	if err != nil {
		return err
	}
	meta, err := toml.Decode(string(settings), v)
	if err != nil {
		return plain(err, settings)
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		names := make([]string, len(extra))
		for i, k := range extra {
			names[i] = fmt.Sprintf("%q", k.String())
			if m := meant(k, v); m != "" {
				names[i] += fmt.Sprintf(" (did you mean %q?)", m)
			}
		}
		return fmt.Errorf("settings: unknown key %s", strings.Join(names, ", "))
	}
	return nil
}
