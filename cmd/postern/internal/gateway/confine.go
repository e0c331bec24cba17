package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/postern-mail/postern/cmd/postern/internal/builtin"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/core/pluginhost"
)

// restrict tells the plugin host what the configuration lets a plugin do.
func restrict(s *pluginhost.Spec, p config.Plugin) error {
	s.SHA256, s.Memory, s.Processes = p.SHA256, int64(p.Memory), p.Processes
	if p.Files != nil {
		s.Files = &confine.Files{Read: p.Files.Read, Write: p.Files.Write}
	}
	if len(s.Command) == 0 {
		s.Network = builtin.Plugins[s.Use].Manifest.Network
	}
	if p.User == "" {
		return nil
	}
	u, err := confine.ParseUser(p.User)
	if err != nil {
		return fmt.Errorf("plugin %q: user: %w", p.Name, err)
	}
	s.User = u
	return nil
}

// contentGroup makes the files of large messages readable for a plugin with a user of its
// own, and returns the group that they have: that of the content directory, if it is not
// root's. Otherwise it is "postern", or the plugin's own group where there is no such group.
func contentGroup(c *config.Config) func(confine.User) (int, error) {
	return func(u confine.User) (int, error) {
		gid, err := groupOf(contentDir(c))
		if err != nil {
			return 0, err
		}
		if gid == 0 {
			gid = u.GID
			if g, err := user.LookupGroup("postern"); err == nil {
				if n, err := strconv.Atoi(g.Gid); err == nil && n > 0 {
					gid = n
				}
			}
			if err := giveContent(c, gid); err != nil {
				return 0, err
			}
		}
		return gid, reachable(c, gid)
	}
}

func groupOf(path string) (int, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("no group is known of " + path)
	}
	return int(st.Gid), nil
}

// giveContent gives the content and the way to it to a group. New files get the group of
// their directory, because of its set-group-ID bit.
func giveContent(c *config.Config, gid int) error {
	dir := contentDir(c)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // delivered meanwhile
			return nil
		}
		if err == nil && path != dir && d.IsDir() {
			return fs.SkipDir // what was set aside is nobody's business
		}
		if err == nil && path != dir {
			if err = os.Lchown(path, -1, gid); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	if own, err := groupOf(c.DataDir); err == nil && own == 0 {
		if err := os.Lchown(c.DataDir, -1, gid); err != nil {
			return err
		}
	}
	// The directory last: with its group it is done.
	return errors.Join(os.Chmod(dir, fs.ModeSetgid|0o710), os.Lchown(dir, -1, gid), os.Chmod(dir, fs.ModeSetgid|0o710))
}

// reachable looks whether a member of the group can go all the way to the content.
func reachable(c *config.Config, gid int) error {
	for dir := contentDir(c); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		own, err := groupOf(dir)
		if err != nil {
			return err
		}
		mode := info.Mode().Perm()
		if mode&0o001 == 0 && (own != gid || mode&0o010 == 0) {
			return fmt.Errorf("its user cannot read messages, for it cannot enter %s (mode %04o): chmod o+x, or keep data_dir elsewhere", dir, mode)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
