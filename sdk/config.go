package sdk

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
}
