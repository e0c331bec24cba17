// Package setting has what the settings of several plugins are made of: lists that may be one
// string, files, and secrets in files.
//
// Its errors say what is wrong with a value and leave the key to the caller. It keeps nothing.
package setting

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// List is one string, or an array of them.
type List []string

// UnmarshalTOML implements [toml.Unmarshaler].
func (l *List) UnmarshalTOML(v any) error {
	all, several := v.([]any)
	if !several {
		all = []any{v}
	}
	list := make(List, len(all))
	for i, e := range all {
		s, ok := e.(string)
		if !ok {
			return errors.New("it is neither a string nor an array of strings")
		}
		list[i] = s
	}
	*l = list
	return nil
}

// File is where a file or folder is: a name that is not absolute lies below dir.
func File(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// maxSecret bounds a password, in bytes.
const maxSecret = 1024

// Secret reads a password: the one line of a file that not everybody may read.
func Secret(file string) (string, error) {
	b, _, err := Private(file, maxSecret)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if secret == "" || strings.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%s does not hold one line with a password", file)
	}
	return secret, nil
}

// Private reads a file that not everybody may read, of at most so many bytes, and tells when it
// was written.
func Private(file string, most int64) ([]byte, time.Time, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, time.Time{}, err
	case !info.Mode().IsRegular():
		return nil, time.Time{}, fmt.Errorf("%s is not a file", file)
	case info.Mode().Perm()&0o007 != 0:
		return nil, time.Time{}, fmt.Errorf("%s may be read by everybody; run: chmod 600 %s", file, file)
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes: it is another file than you meant", file, most)
	}
	return b, info.ModTime(), err
}
