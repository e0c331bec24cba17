package maildir

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Path of a recipient's Maildir, with the placeholders {data_dir}, {domain} and {local}.
	// Default: "{data_dir}/mail/{domain}/{local}".
	Path string `toml:"path"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings { return Settings{Path: "{data_dir}/mail/{domain}/{local}"} }

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{Name: "maildir", Version: "1.0", Needs: sdk.NeedBody}
}

// Plugin stores messages. It implements [sdk.Mailbox].
type Plugin struct {
	path    string // with {domain} and {local}
	host    string
	disk    disk
	now     func() time.Time
	buffers sync.Pool // of *[]byte
	boxes   boxes
}

var (
	_ sdk.Mailbox    = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin {
	return &Plugin{disk: osDisk{}, now: time.Now, boxes: boxes{seed: maphash.MakeSeed(), m: make(map[string]*box)}}
}

// Configure checks the path.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	if !strings.Contains(s.Path, "{local}") {
		return fmt.Errorf("settings: path %q has no {local}: all recipients would share a mailbox", s.Path)
	}
	p.path = strings.ReplaceAll(s.Path, "{data_dir}", c.DataDir)
	if rest := strings.NewReplacer("{domain}", "", "{local}", "").Replace(strings.TrimPrefix(p.path, c.DataDir)); strings.ContainsAny(rest, "{}\x00") {
		return fmt.Errorf("settings: path %q: the placeholders are {data_dir}, {domain} and {local}", s.Path)
	}
	if !filepath.IsAbs(p.path) {
		p.path = filepath.Join(c.DataDir, p.path)
	}
	if !filepath.IsAbs(p.path) {
		return fmt.Errorf("settings: path %q is not absolute", p.path)
	}
	p.host = safe(c.Hostname)
	return nil
}

// Deliver stores one message for one recipient.
func (p *Plugin) Deliver(ctx context.Context, d *sdk.Delivery) error {
	root, dir, err := p.locate(d)
	if err != nil {
		return err
	}
	b := p.boxes.get(dir)
	release, err := b.claim(ctx, d.Key)
	if err != nil {
		return err
	}
	defer release()
	err = p.store(ctx, b, root, d)
	if errors.Is(err, errBoxGone) {
		b.forget()
		err = p.store(ctx, b, root, d)
	}
	if err != nil {
		return report(dir, d, err)
	}
	return nil
}

// errBoxGone says that what is known of a mailbox is not right any more: somebody removed
// its directories.
var errBoxGone = errors.New("the mailbox directory has gone")

// orGone makes errBoxGone of an error about a directory that should be there.
func orGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errBoxGone
	}
	return err
}

// store does the work: the order of what it does to the disk is the promise.
func (p *Plugin) store(ctx context.Context, b *box, root string, d *sdk.Delivery) error {
	if err := p.open(b, root); err != nil {
		return err
	}
	part := keyPart(d.Key)
	stored, err := p.has(b, p.boxes.hash(part))
	if err != nil || stored {
		return err
	}
	base := fmt.Sprintf("%d.%s.%s,S=%d", p.now().Unix(), part, p.host, d.Message.Size())
	tmp := filepath.Join(b.dir, "tmp", base)
	if err := p.write(ctx, tmp, d.Message); err != nil {
		p.disk.Remove(tmp)
		return err
	}
	sub, name := "new", base
	if letters := flagLetters(d.Flags); letters != "" {
		sub, name = "cur", base+":2,"+letters
	}
	target := filepath.Join(b.dir, sub)
	if err := p.disk.Rename(tmp, filepath.Join(target, name)); err != nil {
		p.disk.Remove(tmp)
		return orGone(err)
	}
	// From here on the message may be there after a power cut or not. It is remembered as
	// stored only when it is certain.
	if err := p.disk.SyncDir(target); err != nil {
		b.forget()
		return err
	}
	b.stored(p.boxes.hash(part), p.mtime(b))
	return nil
}

// write makes a durable file of the message.
func (p *Plugin) write(ctx context.Context, path string, m *mail.Message) (err error) {
	f, err := p.disk.Create(path)
	if errors.Is(err, fs.ErrExist) { // of an attempt in the same second that was cut off
		p.disk.Remove(path)
		f, err = p.disk.Create(path)
	}
	if err != nil {
		return orGone(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	body, err := m.Body.Open()
	if err != nil {
		return err
	}
	defer body.Close()
	buf, ok := p.buffers.Get().(*[]byte)
	if !ok {
		b := make([]byte, 64<<10)
		buf = &b
	}
	defer p.buffers.Put(buf)
	if err := copyAll(ctx, f, m.Header.Block(), body, *buf); err != nil {
		return err
	}
	return f.Sync()
}

// copyAll writes header and body through buf, in as few pieces as it takes.
func copyAll(ctx context.Context, w io.Writer, header []byte, body io.Reader, buf []byte) error {
	n := 0
	if len(header) < len(buf) {
		n = copy(buf, header)
	} else if _, err := w.Write(header); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		k, rerr := body.Read(buf[n:])
		n += k
		if n == len(buf) || rerr != nil && n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			n = 0
		}
		if rerr == io.EOF {
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
}

// report makes the answer of an error. What the admin has to look at goes to the log.
func report(dir string, d *sdk.Delivery, err error) error {
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.EDQUOT):
		return mail.Temporary(452, 2, 2, "Mailbox full")
	case errors.Is(err, syscall.ENOSPC):
		slog.Error("no space for a message", "dir", dir, "key", d.Key)
		return mail.Temporary(452, 3, 1, "Insufficient system storage")
	}
	slog.Error("message cannot be stored", "dir", dir, "key", d.Key, "error", err.Error())
	return mail.Temporary(451, 3, 0, "Mailbox not available, try again later")
}

// flagLetters are the flags as Maildir writes them, in order. Keywords have no place in a
// Maildir and are left out.
func flagLetters(flags []string) string {
	var letters []byte
	for _, f := range flags {
		var l byte
		switch strings.ToLower(f) {
		case `\draft`:
			l = 'D'
		case `\flagged`:
			l = 'F'
		case `\answered`:
			l = 'R'
		case `\seen`:
			l = 'S'
		case `\deleted`:
			l = 'T'
		default:
			continue
		}
		if !slices.Contains(letters, l) {
			letters = append(letters, l)
		}
	}
	slices.Sort(letters)
	return string(letters)
}

// seconds is the time in a file's name.
func seconds(name string) (time.Time, bool) {
	s, _, ok := strings.Cut(name, ".")
	n, err := strconv.ParseInt(s, 10, 64)
	return time.Unix(n, 0), ok && err == nil
}
