package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"syscall"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

var (
	// errBoxGone says that what is known of a mailbox is not right any more: somebody removed
	// its directories.
	errBoxGone = errors.New("the mailbox directory has gone")
	// errNoFolder says that a folder does not exist and nobody wants it made.
	errNoFolder = errors.New("the folder does not exist")
)

// Deliver stores one message for one recipient.
func (p *Plugin) Deliver(ctx context.Context, d *sdk.Delivery) error {
	root, dir, err := p.locate(d)
	if err != nil {
		return err
	}
	release, err := p.keys.Claim(ctx, name(root, d))
	if err != nil {
		return err
	}
	defer release()
	err = p.deliver(ctx, root, dir, d)
	if errors.Is(err, errNoFolder) {
		slog.Warn("no such folder, kept in the inbox", "to", d.Recipient.String(), "folder", d.Folder, "key", d.Key)
		dir = root
		err = p.deliver(ctx, root, dir, d)
	}
	if err != nil {
		return report(dir, d, err)
	}
	return nil
}

// name names a delivery.
func name(root string, d *sdk.Delivery) string { return root + "\x00" + d.Key }

// deliver stores a message in one directory, once.
func (p *Plugin) deliver(ctx context.Context, root, dir string, d *sdk.Delivery) error {
	err := p.store(ctx, dir, root, d)
	if errors.Is(err, errBoxGone) {
		p.boxes.forget(root, dir)
		err = p.store(ctx, dir, root, d)
	}
	return err
}

// orGone makes errBoxGone of an error about a directory that should be there.
func orGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errBoxGone
	}
	return err
}

// store does the work: the order of what it does to the disk is the promise.
func (p *Plugin) store(ctx context.Context, dir, root string, d *sdk.Delivery) error {
	create := d.Create || p.settings.CreateFolders || p.settings.special(filepath.Base(dir))
	if err := p.open(dir, root, create); err != nil {
		return err
	}
	part := keyPart(d.Key)
	if stored, err := p.isStored(dir, root, part, d); err != nil || stored {
		return err
	}
	letters, err := p.letters(ctx, dir, d.Flags)
	if err != nil {
		return err
	}
	bytes := d.Message.Size()
	taken, err := p.take(ctx, root, d)
	if err != nil {
		return err
	}
	defer taken.release()
	// W is the length with CRLF line ends, which these are: readers need not count.
	base := fmt.Sprintf("%d.%s.%s,S=%d,W=%d", p.now().Unix(), part, p.hostname, bytes, bytes)
	tmp := filepath.Join(dir, "tmp", base)
	if err := p.write(ctx, tmp, d.Message); err != nil {
		p.disk.Remove(tmp)
		return err
	}
	sub, final := "new", base
	if letters != "" {
		sub, final = "cur", base+":2,"+letters
	}
	target := filepath.Join(dir, sub)
	if err := p.disk.Rename(tmp, filepath.Join(target, final)); err != nil {
		p.disk.Remove(tmp)
		return orGone(err)
	}
	// From here on the message may be there after a power cut or not. It is reported as
	// stored only when it is certain.
	taken.count()
	if err := p.disk.SyncDir(target); err != nil {
		return err
	}
	p.keys.Remember(name(root, d))
	taken.warn(ctx, d.Recipient)
	return nil
}

// isStored looks for the message if an earlier attempt may have stored it: there, or in
// the inbox, if its folder did not exist then.
func (p *Plugin) isStored(dir, root, part string, d *sdk.Delivery) (bool, error) {
	if d.Fresh {
		return false, nil
	}
	if p.keys.Remembered(name(root, d)) {
		return true, nil
	}
	stored, err := p.has(dir, part)
	if err == nil && !stored && dir != root {
		stored, err = p.has(root, part)
	}
	return stored, err
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
	var st mail.Status
	switch {
	case errors.As(err, &st):
		return st
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.EDQUOT):
		return errFull
	case errors.Is(err, syscall.ENOSPC):
		slog.Error("no space for a message", "dir", dir, "key", d.Key)
		return mail.Temporary(452, 3, 1, "Insufficient system storage")
	}
	slog.Error("message cannot be stored", "dir", dir, "key", d.Key, "error", err.Error())
	return mail.Temporary(451, 3, 0, "Mailbox not available, try again later")
}
