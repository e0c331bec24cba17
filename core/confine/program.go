package confine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// OpenProgram opens a program, and makes sure that it is the one whose SHA-256 the
// configuration has. What is returned is what has to be executed: the file behind the name
// may be another by then.
func OpenProgram(path, sum string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := checkProgram(f, sum); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func checkProgram(f *os.File, want string) error {
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
