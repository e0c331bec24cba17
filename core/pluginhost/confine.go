package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// What a plugin is confined to, as its Spec says: a program whose content is known, a user
// of its own, a share of memory and processes (limits.go), and no network unless it asks
// for it. All of it holds from the first instruction on, except for the limits where there
// are no control groups.

// User is who a plugin runs as.
type User struct{ UID, GID int }

// ParseUser reads "name", "name:group" or numbers in their place, as the configuration has it.
func ParseUser(s string) (*User, error) {
	name, group, hasGroup := strings.Cut(s, ":")
	u, err := user.Lookup(name)
	if err != nil {
		if _, nerr := strconv.ParseUint(name, 10, 31); nerr != nil {
			return nil, fmt.Errorf("there is no user %q on this system", name)
		}
		if u, err = user.LookupId(name); err != nil { // a number without a name
			u = &user.User{Uid: name, Gid: name}
		}
	}
	gid := u.Gid
	if hasGroup {
		g, err := user.LookupGroup(group)
		if err != nil {
			if _, nerr := strconv.ParseUint(group, 10, 31); nerr != nil {
				return nil, fmt.Errorf("there is no group %q on this system", group)
			}
			g = &user.Group{Gid: group}
		}
		gid = g.Gid
	}
	who := &User{}
	if who.UID, err = strconv.Atoi(u.Uid); err == nil {
		who.GID, err = strconv.Atoi(gid)
	}
	switch {
	case err != nil:
		return nil, err
	case who.UID == 0:
		return nil, errors.New("that is root, which would confine nothing")
	}
	return who, nil
}

// credential is what the kernel is asked for: no group but its own and, to read messages,
// that of the content. Nil: the host's own user.
func (h *Host) credential(s Spec) (*syscall.Credential, error) {
	if s.User == nil {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("its user cannot be changed: the gateway does not run as root; start it as root, or remove the user key")
	}
	c := &syscall.Credential{Uid: uint32(s.User.UID), Gid: uint32(s.User.GID)}
	if h.opt.ContentGroup == nil {
		return c, nil
	}
	g, err := h.opt.ContentGroup(*s.User)
	if err != nil {
		return nil, err
	}
	if g > 0 && g != s.User.GID {
		c.Groups = []uint32{uint32(g)}
	}
	return c, nil
}

// openPinned opens a program, and makes sure that it is the one whose SHA-256 the
// configuration has. What is returned is what has to be executed: the file behind the name
// may be another by then.
func openPinned(path, want string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := checkPinned(f, want); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func checkPinned(f *os.File, want string) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !fi.Mode().IsRegular():
		return errors.New("is not a regular file")
	case fi.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others may write to it (mode %04o), so its checksum proves nothing: chmod go-w", fi.Mode().Perm())
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d, who may change it at any time: chown it to root", st.Uid)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := sum.Sum(nil); hex.EncodeToString(got) != strings.ToLower(want) {
		return fmt.Errorf("its SHA-256 is %x and not the one in the configuration; if the new program is wanted, change sha256", got)
	}
	return nil
}
