// Package draft keeps the files in which plugins write new bodies, and reads them back.
//
// A plugin with the right to replace bodies gets, with each call, a draft: an empty file that
// the host made and holds open. What the plugin names is only compared with the draft's path;
// what is read is the host's own file. The draft goes when the call ends, however it ends, and
// those of a host that was killed go when the next one starts. What comes out of a [Reader] is
// the wire form of a body, or an error.
//
// The package knows nothing of calls and verdicts. A [Dir] is safe for concurrent use, a
// [Reader] is for one goroutine.
package draft

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/postern-mail/postern/core/confine"
)

// Dir is the directory of drafts. It is made with the first one.
type Dir string

// Open returns the directory at path, without the drafts of a previous host.
func Open(path string) (Dir, error) {
	if err := os.RemoveAll(path); err != nil {
		return "", fmt.Errorf("plugin host: drafts: %w", err)
	}
	return Dir(path), nil
}

// New makes an empty draft that a process with that user (nil: ours) can write to. Its name
// cannot be guessed and the directory not be listed by others, as it is with content. Who
// calls New calls [Discard].
func (d Dir) New(user *confine.User) (*os.File, error) {
	f, err := d.create()
	if errors.Is(err, fs.ErrNotExist) { // the first one
		if err := d.make(); err != nil {
			return nil, err
		}
		f, err = d.create()
	}
	if err != nil || user == nil {
		return f, err
	}
	// He has to get there, and to write.
	if err := errors.Join(os.Chmod(string(d), 0o711), f.Chown(user.UID, user.GID)); err != nil {
		Discard(f)
		return nil, err
	}
	return f, nil
}

func (d Dir) create() (*os.File, error) {
	return os.OpenFile(filepath.Join(string(d), rand.Text()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o660)
}

func (d Dir) make() error {
	if err := os.Mkdir(string(d), 0o710); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Allow permits a process to write to drafts.
func (d Dir) Allow(rules *confine.Rules) error {
	if err := d.make(); err != nil {
		return err
	}
	return rules.AllowOverwrite(string(d))
}

// Close removes the directory with all that is in it.
func (d Dir) Close() { os.RemoveAll(string(d)) }

// Discard removes a draft.
func Discard(draft *os.File) {
	os.Remove(draft.Name())
	draft.Close()
}
