package config

// Plugin is one plugin.
type Plugin struct {
	// Name is unique; it names the built-in plugin too, unless use or command does.
	// Default: none, it is required.
	Name string `toml:"name"`
	// Use names the built-in plugin where it is not the name.
	// Default: "", as name.
	Use string `toml:"use"`
	// Command starts a plugin that is not built in: a program, or an array with its arguments.
	// Default: "", the plugin is built in.
	Command Strings `toml:"command"`
	// Timeout is how long one call may take.
	// Default: "20s"
	Timeout Duration `toml:"timeout"`
	// OnFailure says what happens to a message when the plugin fails.
	// Default: "tempfail"
	OnFailure OnFailure `toml:"on_failure"`
	// Origins are the kinds of mail it is called for: "incoming", "submitted", "internal",
	// "redirected", "copy", "fetched".
	// Default: [], as the plugin says.
	Origins Origins `toml:"origins"`
	// SHA256 is the checksum of the program that command names, in hex: another program, or one
	// that others may write to, is not started. Its arguments are not checked.
	// Default: "", any program.
	SHA256 string `toml:"sha256"`
	// User is who the plugin runs as, "name" or "name:group"; the gateway has to run as root.
	// Of the gateway's files it can then read the content of messages only.
	// Default: "", as the gateway.
	User string `toml:"user"`
	// Memory is what the plugin and all that it starts may take; who takes more is killed.
	// Default: "0B", no limit.
	Memory Size `toml:"memory"`
	// Processes is how many processes and threads there may be.
	// Default: 0, no limit.
	Processes int `toml:"processes"`
	// Files restricts what the plugin may open, whoever it runs as, with Linux's Landlock: only its
	// own program and the files that command names, what programs of all kinds need (libraries,
	// certificates, time zones, names of hosts), the bodies of messages, and what the table lists.
	// An empty table is a restriction too. The plugin does not start where the kernel cannot do it.
	// Unix sockets that have a path it can still connect to, where its user may.
	// Default: not said, what its user may.
	Files *Files `toml:"files"`
	// Settings are the plugin's own: handed over as TOML and decoded strictly by it.
	// Default: none.
	Settings Settings `toml:"settings"`
}

// Files are what a plugin may open besides what it gets anyway. A directory stands for all that
// is in it. What is listed has to be there when the plugin starts, and a file that takes the place
// of another later is not allowed: list its directory.
type Files struct {
	// Read is what it may read and run.
	// Default: []
	Read Strings `toml:"read"`
	// Write is what it may read and change; in a directory it makes and removes files too.
	// Default: []
	Write Strings `toml:"write"`
}

// OnFailure says what happens when a plugin fails: "tempfail", "reject", "accept" (marked
// unscanned) or "park" (taken, and finished when the plugin is back; where it is a gate, asked
// before there is a message, the session goes on if it is a filter as well, and if it is none
// that is the same as tempfail). In the file it is one
// word, or a table; of a table a reason beats a class. Empty fields are not said.
type OnFailure struct {
	// Default is for everything that no other key covers.
	// Default: "tempfail"
	Default string `toml:"default"`
	// Stranger is for mail from unknown clients.
	// Default: as default.
	Stranger string `toml:"stranger"`
	// Authenticated is for mail from users who logged in.
	// Default: as default.
	Authenticated string `toml:"authenticated"`
	// Relay is for mail from relay networks.
	// Default: as default.
	Relay string `toml:"relay"`
	// Down is for a plugin that does not run.
	// Default: not said.
	Down string `toml:"down"`
	// Timeout is for a plugin that took too long.
	// Default: not said.
	Timeout string `toml:"timeout"`
	// Error is for a plugin that answered with an error.
	// Default: not said.
	Error string `toml:"error"`
}
