package sdk

import (
	"errors"
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
// value of the wrong type are errors that name the key.
func (c Config) Decode(v any) error {
	meta, err := toml.Decode(string(c.Settings), v)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			if pe.LastKey != "" {
				return fmt.Errorf("settings: line %d, key %q: %s", pe.Position.Line, pe.LastKey, pe.Message)
			}
			return fmt.Errorf("settings: line %d: %s", pe.Position.Line, pe.Message)
		}
		return fmt.Errorf("settings: %s", strings.TrimPrefix(err.Error(), "toml: "))
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		names := make([]string, len(extra))
		for i, k := range extra {
			names[i] = fmt.Sprintf("%q", k.String())
		}
		return fmt.Errorf("settings: unknown key %s", strings.Join(names, ", "))
	}
	return nil
}
