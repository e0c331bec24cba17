package trial

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Limits of what a trial copies. Keys, lists and what plugins remember are small; mailboxes
// are not, and no plugin needs them to judge a message.
const (
	maxCopiedFile  = 16 << 20 // bytes; a larger file is left out
	maxCopied      = 128 << 20
	maxCopiedFiles = 20_000
	maxCopiedDepth = 5
)

// notCopied are the folders in a data directory that are the gateway's own, and mailboxes.
var notCopied = []string{"queue", "content", "run", "drafts", "tls", "mail", "corrupt"}

// dataCopy copies what plugins keep in the data directory to the trial's own, where they may
// do with it what they like.
type dataCopy struct {
	bytes int64
	files int
}

var errCopied = errors.New("what plugins keep in data_dir is too much to be copied")

// tree copies a folder with what is in it. Links are followed; what is no file or folder is
// left out, and so is what went away meanwhile.
func (c *dataCopy) tree(from, to string, depth int) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if depth == 0 && slices.Contains(notCopied, e.Name()) {
			continue
		}
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		info, err := os.Stat(src)
		switch {
		case err != nil:
			continue
		case info.IsDir() && depth < maxCopiedDepth:
			if err = os.Mkdir(dst, 0o700); err == nil {
				err = c.tree(src, dst, depth+1)
			}
		case info.Mode().IsRegular() && depth > 0 && info.Size() <= maxCopiedFile:
			err = c.file(src, dst)
		default:
			continue
		}
		if err == nil {
			err = sameOwner(dst, info)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (c *dataCopy) file(from, to string) error {
	if c.files++; c.files > maxCopiedFiles {
		return errCopied
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(dst, io.LimitReader(src, maxCopiedFile))
	if c.bytes += n; c.bytes > maxCopied && err == nil {
		err = errCopied
	}
	return errors.Join(err, dst.Close())
}

// sameOwner gives a copy the mode of the original, and its owner where we may.
func sameOwner(path string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(path, info.Mode().Perm())
}
