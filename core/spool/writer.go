package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// Writer takes the body of one message. After Finish the body can be read, after Sync it
// is durable. A Writer that does not end in a queue entry must be aborted.
type Writer struct {
	s      *Spool
	buf    *[]byte // the body so far, or what is not yet in the file
	file   disk.File
	name   string
	size   int64
	sum    uint32
	synced bool
	err    error // the first error; everything after it fails too
}

// NewWriter begins a body.
func (s *Spool) NewWriter() *Writer { return &Writer{s: s} }

var errFinished = errors.New("spool: write to a finished body")

// Write appends to the body. An error is final for this body and wraps [queue.ErrNoSpace]
// where space, inodes, a quota or a file size limit have run out.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.buf == nil {
		w.buf = w.s.buffers.Get().(*[]byte)
	}
	total := len(p)
	for len(p) > 0 {
		room := cap(*w.buf) - len(*w.buf)
		if w.file == nil {
			room = w.s.o.Threshold - len(*w.buf)
		}
		if len(p) <= room {
			*w.buf = append(*w.buf, p...)
			break
		}
		if w.file == nil {
			if err := w.create(); err != nil {
				return 0, w.fail(err)
			}
			continue
		}
		*w.buf = append(*w.buf, p[:room]...)
		p = p[room:]
		if err := w.flush(); err != nil {
			return 0, w.fail(err)
		}
	}
	w.size += int64(total)
	return total, nil
}

func (w *Writer) create() error {
	if err := w.s.use(room{files: 1}); err != nil {
		return err
	}
	w.name = newName()
	f, err := w.s.o.FS.OpenFile(w.s.Path(w.name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		w.name = ""
		return err
	}
	w.file = f
	return nil
}

func (w *Writer) flush() error {
	b := *w.buf
	if err := w.s.use(room{bytes: uint64(len(b))}); err != nil {
		return err
	}
	n, err := w.file.Write(b)
	if err == nil && n < len(b) {
		err = errors.New("short write")
	}
	w.sum = crc32.Update(w.sum, crc32.MakeTable(crc32.Castagnoli), b)
	*w.buf = b[:0]
	return err
}

// Size is how many bytes were written so far.
func (w *Writer) Size() int64 { return w.size }

// Finish ends the body, which can then be read, but is not durable before Sync.
func (w *Writer) Finish() (mail.Body, error) {
	if w.err != nil {
		return mail.Body{}, w.err
	}
	defer w.release()
	if w.file == nil {
		if err := w.s.use(room{bytes: uint64(w.size)}); err != nil { // it goes to the log
			return mail.Body{}, w.fail(err)
		}
		w.synced = true
		var b []byte
		if w.buf != nil {
			b = append(make([]byte, 0, len(*w.buf)), *w.buf...)
		}
		w.err = errFinished
		return mail.InlineBody(b), nil
	}
	if err := w.flush(); err != nil {
		return mail.Body{}, w.fail(err)
	}
	w.err = errFinished
	return mail.Body{Path: w.s.Path(w.name), Size: w.size, Sum: w.sum, Summed: true}, nil
}

// Sync makes a finished body durable: the file, then its name. After an error nothing is
// known of the body and it must be aborted.
func (w *Writer) Sync() error {
	if w.synced {
		return nil
	}
	if w.err != errFinished {
		return errors.Join(w.err, errors.New("spool: sync of an unfinished body"))
	}
	if err := w.file.Sync(); err != nil {
		return w.fail(err)
	}
	err := w.file.Close()
	w.file = nil
	if err != nil {
		return w.fail(err)
	}
	if err := w.s.o.FS.SyncDir(w.s.o.Dir); err != nil {
		return w.fail(err)
	}
	w.synced = true
	return nil
}

// Abort removes what was written. After the commit of an entry that names the body it must
// not be called any more.
func (w *Writer) Abort() {
	w.release()
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
	if w.name != "" {
		if err := w.s.Remove(w.name); err != nil {
			w.s.o.Log.Warn("spool: aborted content stays until the next start", "error", err)
		}
		w.name = ""
	}
	w.err = errors.New("spool: body was aborted")
}

func (w *Writer) release() {
	if w.buf != nil {
		*w.buf = (*w.buf)[:0]
		w.s.buffers.Put(w.buf)
		w.buf = nil
	}
}

func (w *Writer) fail(err error) error {
	if disk.IsFull(err) {
		err = fmt.Errorf("%w: %w", queue.ErrNoSpace, err)
	}
	w.err = fmt.Errorf("spool: %w", err)
	return w.err
}
