package sieve

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Before and After are scripts that run before and after the recipient's own: files, one
	// or an array.
	// Default: "".
	Before fileList `toml:"before"`
	After  fileList `toml:"after"`
	// Domain has more of them for the recipients of a domain: they run next to the recipient's own.
	// Default: {}.
	Domain map[string]struct {
		Before fileList `toml:"before"`
		After  fileList `toml:"after"`
	} `toml:"domain"`
	// Gateway are scripts that run for each message before it is accepted: files, one or an array.
	// Default: "".
	Gateway fileList `toml:"gateway"`
	// GlobalDir has the scripts that others include with ":global", each as NAME.sieve.
	// Default: "", there are none.
	GlobalDir string `toml:"global_dir"`
	// Delimiter separates user and detail in a local part.
	// Default: "+".
	Delimiter string `toml:"delimiter"`
	// Redirects is how many redirects one script may do.
	// Default: 4.
	Redirects int `toml:"redirects"`
	// SpecialUse has the names of mailboxes by their attribute.
	// Default: \Drafts, \Junk, \Sent, \Trash and \Archive by these names.
	SpecialUse map[string]string `toml:"special_use"`
	// Spam and Antivirus are the names of the plugins whose results spamtest and virustest tell.
	// Default: "spam" and "antivirus".
	Spam      string `toml:"spam"`
	Antivirus string `toml:"antivirus"`
	// ManageSieve are the addresses where people manage their scripts themselves (RFC 5804), each
	// "host:port". Scripts run in any case.
	// Default: [], nowhere.
	ManageSieve []string `toml:"managesieve"`
	// ManageSieveConnections is how many connections there may be at a time, ManageSievePerClient
	// how many of one address (IPv6: of one /64).
	// Default: 256 and 32.
	ManageSieveConnections int `toml:"managesieve_connections"`
	ManageSievePerClient   int `toml:"managesieve_per_client"`
	// Quota bounds the scripts of one account.
	Quota struct {
		Scripts    int   `toml:"scripts"`     // Default: 32
		ScriptSize int64 `toml:"script_size"` // bytes. Default: 262144
		Size       int64 `toml:"size"`        // bytes, of all. Default: 1048576
	} `toml:"quota"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	s := Settings{Delimiter: "+", Redirects: 4, Spam: "spam", Antivirus: "antivirus", ManageSieveConnections: 256, ManageSievePerClient: 32}
	q := DefaultQuota()
	s.Quota.Scripts, s.Quota.ScriptSize, s.Quota.Size = q.Scripts, q.ScriptSize, q.Size
	return s
}

// specialUse are the mailboxes with an attribute where the settings do not name them (RFC 6154 §2).
func specialUse() map[string]string {
	return map[string]string{`\drafts`: "Drafts", `\junk`: "Junk", `\sent`: "Sent", `\trash`: "Trash", `\archive`: "Archive"}
}

// SettingsOf reads and checks the settings in a gateway's configuration.
func SettingsOf(c sdk.Config) (Settings, error) {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return s, err
	}
	switch {
	case s.Delimiter == "":
		return s, errors.New("settings: delimiter cannot be empty")
	case s.Redirects < 1 || s.Redirects > 32:
		return s, errors.New("settings: redirects is from 1 to 32")
	case s.Quota.Scripts < 1 || s.Quota.Scripts > 200:
		return s, errors.New("settings: quota.scripts is from 1 to 200")
	case s.Quota.ScriptSize < 1 || s.Quota.ScriptSize > 1<<20:
		return s, errors.New("settings: quota.script_size is from 1 to 1048576")
	case s.Quota.Size < s.Quota.ScriptSize:
		return s, errors.New("settings: quota.size is less than quota.script_size")
	}
	if err := s.checkManageSieve(); err != nil {
		return s, err
	}
	for name := range s.Domain {
		if _, err := mail.ParseDomain(name); err != nil {
			return s, fmt.Errorf("settings: domain %q: %w", name, err)
		}
	}
	s.place(c.DataDir)
	return s, nil
}

// CheckSetting looks at something that is to be set for an account; known: the plugin reads it.
func CheckSetting(key, value string) (known bool, err error) {
	if key != "sieve" {
		return false, nil
	}
	if value != "on" && value != "off" {
		return true, fmt.Errorf("sieve is on or off, not %q", value)
	}
	return true, nil
}

// place makes the paths absolute.
func (s *Settings) place(dir string) {
	for _, l := range []fileList{s.Before, s.After, s.Gateway} {
		l.place(dir)
	}
	for _, d := range s.Domain {
		d.Before.place(dir)
		d.After.place(dir)
	}
	if s.GlobalDir != "" && !filepath.IsAbs(s.GlobalDir) {
		s.GlobalDir = filepath.Join(dir, s.GlobalDir)
	}
}

// EngineOptions are what scripts may use.
func (s *Settings) EngineOptions() engine.Options {
	return engine.Options{Limits: engine.Limits{Redirects: s.Redirects, ScriptSize: 1 << 20}}
}

// Store returns the store of scripts in d, with the quota of the settings.
func (s *Settings) Store(d Data) *Store {
	q := Quota{Scripts: s.Quota.Scripts, ScriptSize: s.Quota.ScriptSize, Size: s.Quota.Size}
	return &Store{Data: d, Quota: q, Engine: s.EngineOptions()}
}

// fileList is a setting that is one file or an array of them.
type fileList []string

// UnmarshalTOML implements [toml.Unmarshaler].
func (l *fileList) UnmarshalTOML(v any) error {
	*l = nil
	switch v := v.(type) {
	case string:
		if v != "" {
			*l = fileList{v}
		}
		return nil
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok || s == "" {
				return errors.New("is a file or an array of files")
			}
			*l = append(*l, s)
		}
		return nil
	}
	return errors.New("is a file or an array of files")
}

func (l fileList) place(dir string) {
	for i, f := range l {
		if !filepath.IsAbs(f) {
			l[i] = filepath.Join(dir, f)
		}
	}
}
