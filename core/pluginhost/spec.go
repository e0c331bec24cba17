package pluginhost

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/core/pluginhost/hostservice"
)

// Options are what a host is built from.
type Options struct {
	// RunDir is for sockets and notes about processes; made with mode 0700 if need be. No
	// other host may use it at the same time.
	RunDir string
	// DraftDir is for the files in which plugins write new bodies; made with the first, and
	// emptied at the start. It has to be on a disk with room for them, and where a plugin with a user
	// of its own can enter. "": "drafts" in RunDir.
	DraftDir string
	// ContentDir is where the files of large messages are; for plugins whose files are
	// restricted. "": no such plugin reads any.
	ContentDir string
	// SelfExe is the gateway's binary, "/proc/self/exe": it runs a built-in plugin as
	// "plugin serve NAME" and the guard as "plugin guard" (see [child.Guard]).
	SelfExe string
	// Hostname, Postmaster and DataDir are handed to plugins, Version is the gateway's.
	Hostname, Postmaster, DataDir, Version string
	// DNSServers are handed to plugins: the resolvers to ask.
	DNSServers []string
	// ContentGroup returns the group that may read the files of large messages, and makes it
	// so; nil: none. Plugins with a user of their own are in it.
	ContentGroup func(confine.User) (int, error)
	Log          *slog.Logger
	Clock        func() time.Time // nil: time.Now
	// Services are what plugins may ask of the gateway.
	Services hostservice.Services
	// Up is called when a plugin works that did not, or another process of it than before:
	// after a restart, and when it is enabled. It must not block, nor ask the host. It is not
	// called of what Start and Reload started: who calls those knows. nil: nobody is told.
	Up func(plugin string)
	// Idle is for a trial beside a gateway that runs: services are not activated, and
	// their listeners not opened.
	Idle bool

	timing *timing // for tests
}

// Spec is one plugin as configured.
type Spec struct {
	Name string // unique
	// Use names a built-in plugin. Command runs a program instead, by its absolute path.
	Use      string
	Command  []string
	Settings []byte        // TOML
	Timeout  time.Duration // of one call; 0: 30 s

	// SHA256 is the checksum that the program of Command must have, in hex; "": any.
	SHA256 string
	User   *confine.User // nil: the gateway's own
	// Memory is for the process and all it starts, in bytes; 0: no limit. What takes more is
	// killed.
	Memory int64
	// Processes is how many processes and threads there may be; 0: no limit.
	Processes int
	// Files are what it may open besides what every plugin needs; nil: whatever its user may.
	Files *confine.Files
	// Network says, of a built-in plugin, what its manifest says, which saves a start.
	Network bool

	program string // what the files of Command were like when it was launched
}

func (s Spec) limits() confine.Limits {
	return confine.Limits{Memory: s.Memory, Processes: s.Processes, OwnUser: s.User != nil}
}

func (s Spec) argv(self string) []string {
	if len(s.Command) > 0 {
		return s.Command
	}
	return []string{self, "plugin", "serve", s.Use}
}

func (s Spec) equal(t Spec) bool {
	return s.Name == t.Name && s.Use == t.Use && s.Timeout == t.Timeout &&
		slices.Equal(s.Command, t.Command) && string(s.Settings) == string(t.Settings) && s.program == t.program &&
		s.SHA256 == t.SHA256 && s.Memory == t.Memory && s.Processes == t.Processes && s.Network == t.Network && s.Files.Equal(t.Files) &&
		(s.User == nil) == (t.User == nil) && (s.User == nil || *s.User == *t.User)
}

// key names the program: another one may need other things.
func (s Spec) key() string { return s.Name + "\n" + s.program }

// stamp tells a program, or the script that it runs, from a later one at the same place.
func stamp(command []string) string {
	var b strings.Builder
	for _, path := range command {
		if info, err := os.Stat(path); err == nil && filepath.IsAbs(path) && info.Mode().IsRegular() {
			fmt.Fprintf(&b, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

func (s Spec) check() error {
	switch {
	case s.Name == "":
		return errors.New("a plugin has no name")
	case (s.Use == "") == (len(s.Command) == 0):
		return fmt.Errorf("plugin %q: give either the name of a built-in plugin or a command", s.Name)
	case len(s.Command) > 0 && !filepath.IsAbs(s.Command[0]):
		return fmt.Errorf("plugin %q: the command %q is not an absolute path", s.Name, s.Command[0])
	case s.Timeout < 0:
		return fmt.Errorf("plugin %q: the timeout is negative", s.Name)
	case s.SHA256 != "" && len(s.Command) == 0:
		return fmt.Errorf("plugin %q: a checksum is for a command", s.Name)
	case s.Memory < 0 || s.Processes < 0:
		return fmt.Errorf("plugin %q: a limit is negative", s.Name)
	}
	return nil
}
