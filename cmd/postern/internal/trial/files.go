package trial

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/core/pluginhost"
)

// moveFiles has what plugins may open below the data directory stand for the same below the
// trial's copy of it.
func moveFiles(specs []pluginhost.Spec, from, to string) error {
	for i, s := range specs {
		if s.Files == nil {
			continue
		}
		read, err := movePaths(s.Files.Read, from, to)
		if err != nil {
			return fmt.Errorf("plugin %q: files.read: %w", s.Name, err)
		}
		write, err := movePaths(s.Files.Write, from, to)
		if err != nil {
			return fmt.Errorf("plugin %q: files.write: %w", s.Name, err)
		}
		specs[i].Files = &confine.Files{Read: read, Write: write}
	}
	return nil
}

// movePaths does so for a list. Directories that were not copied are there, empty.
func movePaths(paths []string, from, to string) ([]string, error) {
	var moved []string
	for _, path := range paths {
		if rel, err := filepath.Rel(path, from); err == nil && filepath.IsLocal(rel) && rel != "." {
			moved = append(moved, to) // it is in path, and so the copy has to be
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || !filepath.IsLocal(rel) {
			moved = append(moved, path)
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		there := filepath.Join(to, rel)
		if _, err := os.Stat(there); errors.Is(err, fs.ErrNotExist) {
			if !info.IsDir() {
				continue // too large, or none of the plugins' business
			}
			if err := errors.Join(os.MkdirAll(there, 0o700), sameOwner(there, info)); err != nil {
				return nil, err
			}
		}
		moved = append(moved, there)
	}
	return moved, nil
}
