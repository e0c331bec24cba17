package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Keywords have letters in file names, a to z, and a file says which is which. That file,
// its format and how it is locked are Dovecot's.
const (
	keywordFile = "dovecot-keywords"
	keywordLock = "dovecot-uidlist.lock" // guards the keywords as well
	maxKeywords = 26
	maxKeyword  = 64      // bytes
	maxTable    = 1 << 16 // bytes of a file that we read whole

	lockStale = 2 * time.Minute
)

// letters are flags as a file's name has them, in order.
func (p *Plugin) letters(ctx context.Context, dir string, flags []string) (string, error) {
	var letters []byte
	var keywords []string
	for _, f := range flags {
		if l := systemFlag(f); l != 0 {
			letters = append(letters, l)
		} else if isKeyword(f) {
			keywords = append(keywords, f)
		}
	}
	if len(keywords) > 0 {
		more, err := p.keywords(ctx, dir, keywords)
		if err != nil {
			return "", err
		}
		letters = append(letters, more...)
	}
	slices.Sort(letters)
	return string(slices.Compact(letters)), nil
}

func systemFlag(f string) byte {
	switch strings.ToLower(f) {
	case `\draft`:
		return 'D'
	case `\flagged`:
		return 'F'
	case `\answered`:
		return 'R'
	case `\seen`:
		return 'S'
	case `\deleted`:
		return 'T'
	}
	return 0
}

// isKeyword reports whether a flag is a keyword: an atom of RFC 9051.
func isKeyword(f string) bool {
	if f == "" || len(f) > maxKeyword {
		return false
	}
	for i := range len(f) {
		if c := f[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`(){%*"\]`, c) >= 0 {
			return false
		}
	}
	return true
}

// keywords returns the letters of keywords in a folder. Those without a letter get one, as
// long as there are any.
func (p *Plugin) keywords(ctx context.Context, dir string, keywords []string) ([]byte, error) {
	path := filepath.Join(dir, keywordFile)
	table, err := readKeywords(path)
	if err != nil {
		return nil, err
	}
	letters, missing := table.letters(keywords)
	if !missing {
		return letters, nil
	}
	unlock, err := p.lock(ctx, filepath.Join(dir, keywordLock), lockStale)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		slog.Warn("no new keywords in this folder", "dir", dir, "error", err.Error())
		return letters, nil // the message matters more
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	if table, err = readKeywords(path); err != nil {
		return nil, err
	}
	if table.add(keywords) {
		if err := p.replace(path, table.text()); err != nil {
			return nil, err
		}
	}
	letters, _ = table.letters(keywords)
	return letters, nil
}

// keywordTable has the keyword of each letter; "": the letter is free.
type keywordTable [maxKeywords]string

func readKeywords(path string) (t keywordTable, err error) {
	text, err := readAll(path, maxTable)
	if err != nil {
		return t, err
	}
	for line := range bytes.Lines(text) {
		number, name, ok := strings.Cut(strings.TrimRight(string(line), "\n"), " ")
		if i, err := strconv.Atoi(number); ok && err == nil && i >= 0 && i < maxKeywords && name != "" {
			t[i] = name
		}
	}
	return t, nil
}

func (t *keywordTable) find(keyword string) int {
	return slices.IndexFunc(t[:], func(k string) bool { return strings.EqualFold(k, keyword) })
}

// letters are those of the keywords that have one; missing: others could get one.
func (t *keywordTable) letters(keywords []string) (letters []byte, missing bool) {
	for _, k := range keywords {
		if i := t.find(k); i >= 0 {
			letters = append(letters, 'a'+byte(i))
		} else {
			missing = true
		}
	}
	return letters, missing && slices.Contains(t[:], "")
}

func (t *keywordTable) add(keywords []string) (changed bool) {
	for _, k := range keywords {
		if t.find(k) >= 0 {
			continue
		}
		if i := slices.Index(t[:], ""); i >= 0 {
			t[i], changed = k, true
		}
	}
	return changed
}

func (t *keywordTable) text() []byte {
	var b []byte
	for i, k := range t {
		if k != "" {
			b = fmt.Appendf(b, "%d %s\n", i, k)
		}
	}
	return b
}

// readAll reads a small file; one that is not there is empty.
func readAll(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		err = fmt.Errorf("%s is longer than %d bytes", path, max)
	}
	return b, err
}
