package config

import (
	"crypto/sha256"
	"encoding/hex"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// The smallest limits with which a program of any size still starts.
const (
	minMemory    = 16 << 20
	minProcesses = 16
)

// confinement looks at what keeps a plugin from doing harm.
func (v *validator) confinement(key string, p Plugin) {
	if p.SHA256 != "" {
		if b, err := hex.DecodeString(p.SHA256); err != nil || len(b) != sha256.Size {
			v.problem(key+".sha256", "is not a SHA-256 in hex; see sha256sum %s", strings.Join(p.Command[:min(1, len(p.Command))], ""))
		}
		if len(p.Command) == 0 {
			v.problem(key+".sha256", "is for a plugin with a command; the built-in ones are the gateway itself")
		}
	}
	if p.User != "" {
		v.user(key+".user", p.User)
	}
	if p.Files != nil {
		v.paths(key+".files.read", p.Files.Read)
		v.paths(key+".files.write", p.Files.Write)
	}
	if p.Memory != 0 && p.Memory < minMemory {
		v.problem(key+".memory", "must be 0, for no limit, or at least %s", Size(minMemory))
	}
	if p.Processes < 0 || p.Processes > 0 && p.Processes < minProcesses {
		v.problem(key+".processes", "must be 0, for no limit, or at least %d: threads count", minProcesses)
	}
}

// paths wants names of files, and none that would restrict nothing.
func (v *validator) paths(key string, list Strings) {
	for i, path := range list {
		switch {
		case path == "":
			v.problem(indexKey(key, i), "is empty; name a file or a directory")
		case filepath.Clean(path) == "/":
			v.problem(indexKey(key, i), "is everything, which would restrict nothing")
		}
	}
}

// user wants "name" or "name:group" that exist; numbers need not.
func (v *validator) user(key, s string) {
	name, group, hasGroup := strings.Cut(s, ":")
	if _, err := strconv.ParseUint(name, 10, 31); err != nil {
		u, err := user.Lookup(name)
		if err != nil {
			v.problem(key, "there is no user %q on this system", name)
		} else if u.Uid == "0" {
			v.problem(key, "%q is root, which would confine nothing", name)
		}
	} else if name == "0" {
		v.problem(key, "that is root, which would confine nothing")
	}
	if _, err := strconv.ParseUint(group, 10, 31); hasGroup && err != nil {
		if _, err := user.LookupGroup(group); err != nil {
			v.problem(key, "there is no group %q on this system", group)
		}
	}
}
