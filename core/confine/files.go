package confine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Files are what a process may open besides what every program needs. A directory stands for
// all that is in it. A rule holds for what is behind the name when the process starts: a
// file that takes its place later is another.
type Files struct {
	// Read lists what it may read and run.
	Read []string
	// Write lists what it may read and change: in a directory it may make and remove files
	// too. Nothing there can be run.
	Write []string
}

// Equal reports whether two say the same.
func (f *Files) Equal(g *Files) bool {
	return f == g || f != nil && g != nil && slices.Equal(f.Read, g.Read) && slices.Equal(f.Write, g.Write)
}

// SearchPath is where programs look for others.
const SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Allow permits what f lists. Something that is not there is an error.
func (r *Rules) Allow(f Files) error {
	for _, path := range f.Read {
		if err := r.allow(run, path); err != nil {
			return fmt.Errorf("files.read: %w", err)
		}
	}
	for _, path := range f.Write {
		if err := r.allow(write, path); err != nil {
			return fmt.Errorf("files.write: %w", err)
		}
	}
	return nil
}

// AllowNamed permits to read the files in a directory whose names are known: it cannot be
// listed.
func (r *Rules) AllowNamed(dir string) error { return r.allow(readFile, dir) }

// AllowSockets permits to make sockets in a directory, and files and more.
func (r *Rules) AllowSockets(dir string) error { return r.allow(write, dir) }

// AllowOverwrite permits to write to files that are in a directory.
func (r *Rules) AllowOverwrite(dir string) error { return r.allow(overwrite, dir) }

// AllowProgram permits a command: the program, which is in opened if that is not nil, what
// interprets it if it is a script, and the files among its arguments.
func (r *Rules) AllowProgram(command []string, opened *os.File) error {
	head := make([]byte, 256)
	if opened != nil {
		if err := r.allowFD(run, int(opened.Fd()), command[0]); err != nil {
			return err
		}
		n, _ := opened.ReadAt(head, 0)
		head = head[:n]
	} else {
		if err := r.allow(run, command[0]); err != nil {
			return err
		}
		head = firstBytes(command[0], head)
	}
	for _, path := range interpreters(head) {
		if err := r.allow(run, path); err != nil {
			return err
		}
	}
	for _, path := range command[1:] {
		if info, err := os.Stat(path); err == nil && filepath.IsAbs(path) && info.Mode().IsRegular() {
			if err := r.allow(run, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// firstBytes is what a program begins with; nothing if it can be run but not read.
func firstBytes(path string, buf []byte) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	n, _ := io.ReadFull(f, buf)
	return buf[:n]
}

// interpreters are the programs that run a script: that of its first line, and the one that
// env(1) finds.
func interpreters(head []byte) []string {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return nil
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 || !filepath.IsAbs(words[0]) {
		return nil
	}
	if filepath.Base(words[0]) == "env" {
		for _, w := range words[1:] {
			if strings.HasPrefix(w, "-") || strings.Contains(w, "=") {
				continue
			}
			for dir := range strings.SplitSeq(SearchPath, ":") {
				if info, err := os.Stat(filepath.Join(dir, w)); err == nil && info.Mode().IsRegular() {
					return []string{words[0], filepath.Join(dir, w)}
				}
			}
			break
		}
	}
	return words[:1]
}

// AllowSystem permits what programs of all kinds need: libraries, certificates, time zones,
// names of hosts. There is no secret in it, and nothing of what other processes do.
func (r *Rules) AllowSystem() error {
	for _, set := range []struct {
		access access
		paths  []string
	}{
		{run, []string{"/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/local/lib", "/usr/local/lib64"}},
		{read, []string{
			"/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
			// Not all of /etc/ssl and /etc/pki: private keys are in there.
			"/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
			"/etc/pki/ca-trust/extracted", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies",
			"/etc/localtime", "/usr/share/zoneinfo",
			"/etc/resolv.conf", resolverDir(), "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols",
		}},
		{readFile, []string{"/dev/zero", "/dev/random", "/dev/urandom"}},
		{readFile | overwrite, []string{"/dev/null"}},
	} {
		for _, path := range set.paths {
			if err := r.allow(set.access, path); err != nil && !absent(err) {
				return err
			}
		}
	}
	return nil
}

// absent is an error about a path that is not on this system, or not for us.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// resolverDir is where a service keeps resolv.conf; "": nowhere. It replaces the file
// whenever the network changes, so a rule about the file would not hold for long.
func resolverDir() string {
	path, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if dir := filepath.Dir(path); err == nil && strings.HasPrefix(dir, "/run/") {
		return dir
	}
	return ""
}
