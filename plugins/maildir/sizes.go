package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The file maildirsize of a mailbox says what is in it: the quota on the first line, then
// lines of bytes and messages, which add up. Programs that put in or take out messages
// append a line each; when the file has become long, or says that there is too much, what
// is there is counted again. That is the quota convention of Maildir++.
const (
	sizeFile    = "maildirsize"
	maxSizeFile = 5120             // bytes; a longer file is made anew
	recount     = 15 * time.Minute // a count that says "full" is good for so long
)

// amount is an amount of mail.
type amount struct{ bytes, messages int64 }

func (a amount) plus(b amount) amount { return amount{a.bytes + b.bytes, a.messages + b.messages} }

// exceeds reports whether a is more than a limit, of which 0 is none.
func (a amount) exceeds(limit amount) bool {
	return limit.bytes > 0 && a.bytes > limit.bytes || limit.messages > 0 && a.messages > limit.messages
}

// sizes is a maildirsize file.
type sizes struct {
	limit amount
	total amount
	lines int // of amounts
	time  time.Time
}

var errNoSizes = errors.New("there is no usable maildirsize")

// readSizes reads the file. errNoSizes: it has to be made.
func readSizes(root string) (s sizes, err error) {
	f, err := os.Open(filepath.Join(root, sizeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, errNoSizes
	}
	if err != nil {
		return s, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return s, err
	}
	s.time = fi.ModTime()
	text, err := io.ReadAll(io.LimitReader(f, maxSizeFile+1))
	if err != nil {
		return s, err
	}
	if len(text) > maxSizeFile || !s.parse(text) {
		return s, errNoSizes
	}
	return s, nil
}

func (s *sizes) parse(text []byte) bool {
	first, rest, ok := bytes.Cut(text, []byte("\n"))
	if !ok || !s.parseLimit(string(first)) {
		return false
	}
	for line := range bytes.Lines(rest) {
		fields := bytes.Fields(line)
		if len(fields) != 2 {
			return false
		}
		b, err := strconv.ParseInt(string(fields[0]), 10, 64)
		n, err2 := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil || err2 != nil {
			return false
		}
		s.total = s.total.plus(amount{b, n})
		s.lines++
	}
	return s.lines > 0 && s.total.bytes >= 0 && s.total.messages >= 0
}

// parseLimit reads "1000S,20C".
func (s *sizes) parseLimit(text string) bool {
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		n, err := strconv.ParseInt(part[:len(part)-1], 10, 64)
		if err != nil || n < 0 {
			return false
		}
		switch part[len(part)-1] {
		case 'S':
			s.limit.bytes = n
		case 'C':
			s.limit.messages = n
		default:
			return false
		}
	}
	return true
}

func (s *sizes) text() []byte {
	var parts []string
	if s.limit.bytes > 0 || s.limit.messages == 0 {
		parts = append(parts, fmt.Sprintf("%dS", s.limit.bytes))
	}
	if s.limit.messages > 0 {
		parts = append(parts, fmt.Sprintf("%dC", s.limit.messages))
	}
	return fmt.Appendf(nil, "%s\n%d %d\n", strings.Join(parts, ","), s.total.bytes, s.total.messages)
}

// count counts what is in a mailbox and writes it down. What others put in or take out
// meanwhile is counted once more.
func (p *Plugin) count(root string, limit amount) (sizes, error) {
	s := sizes{limit: limit, lines: 1}
	for range 3 {
		before, err := p.changed(root)
		if err != nil {
			return s, err
		}
		if s.total, err = p.sum(root); err != nil {
			return s, err
		}
		if after, err := p.changed(root); err != nil || after.Equal(before) {
			break
		}
	}
	s.time = p.now()
	return s, p.writeSizes(root, &s)
}

// writeSizes replaces the file. It need not survive a power cut: without it, all is counted
// again.
func (p *Plugin) writeSizes(root string, s *sizes) error {
	tmp := filepath.Join(root, "tmp", fmt.Sprintf("%d.maildirsize.%d.%s", p.now().UnixNano(), os.Getpid(), p.hostname))
	f, err := p.disk.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(s.text())
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.disk.Rename(tmp, filepath.Join(root, sizeFile))
	}
	if err != nil {
		p.disk.Remove(tmp)
	}
	return err
}

// note appends what was put in, or taken out. A mailbox without the file has no use for it.
func (p *Plugin) note(root string, a amount) {
	f, err := p.disk.Append(filepath.Join(root, sizeFile))
	if err != nil {
		return
	}
	fmt.Fprintf(f, "%d %d\n", a.bytes, a.messages)
	f.Close()
}

// folders are the directories of a mailbox and its folders.
func (p *Plugin) folders(root string) ([]string, error) {
	names, err := p.disk.Names(root)
	if err != nil {
		return nil, err
	}
	dirs := []string{root}
	for _, name := range names {
		if strings.HasPrefix(name, ".") && name != "." && name != ".." {
			dirs = append(dirs, filepath.Join(root, name))
		}
	}
	return dirs, nil
}

// changed is when a message was last put into a mailbox, or taken out.
func (p *Plugin) changed(root string) (latest time.Time, err error) {
	dirs, err := p.folders(root)
	if err != nil {
		return latest, err
	}
	for _, dir := range dirs {
		for _, sub := range []string{"new", "cur"} {
			if t, err := p.disk.ModTime(filepath.Join(dir, sub)); err == nil && t.After(latest) {
				latest = t
			}
		}
	}
	return latest, nil
}

// sum adds up all messages.
func (p *Plugin) sum(root string) (total amount, err error) {
	dirs, err := p.folders(root)
	if err != nil {
		return total, err
	}
	for _, dir := range dirs {
		for _, sub := range []string{"new", "cur"} {
			names, err := p.disk.Names(filepath.Join(dir, sub))
			if err != nil {
				continue // no folder, or just removed
			}
			for _, name := range names {
				if n, ok := sizeOf(filepath.Join(dir, sub), name); ok {
					total = total.plus(amount{n, 1})
				}
			}
		}
	}
	return total, nil
}

// sizeOf is the size of a message: its name says it, mostly.
func sizeOf(dir, name string) (int64, bool) {
	if strings.HasPrefix(name, ".") {
		return 0, false
	}
	if _, rest, ok := strings.Cut(name, ",S="); ok {
		end := 0
		for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
			end++
		}
		if n, err := strconv.ParseInt(rest[:end], 10, 64); err == nil {
			return n, true
		}
	}
	fi, err := os.Lstat(filepath.Join(dir, name))
	if err != nil || !fi.Mode().IsRegular() {
		return 0, false
	}
	return fi.Size(), true
}
