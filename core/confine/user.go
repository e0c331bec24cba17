package confine

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
)

// User is who a process runs as.
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
