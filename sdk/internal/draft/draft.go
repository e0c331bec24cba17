// Package draft is the file in which a plugin writes a new body. The server of a plugin and
// sdktest open one for a call, package sdk hands it to the author. It is written through a
// pooled buffer; its first error is kept and comes out at the end, so that half a body never
// counts as one. A Draft is used by one goroutine.
package draft

import (
	"bufio"
	"context"
	"errors"
	"os"
	"sync"
)

// Draft is the draft of one call.
type Draft struct {
	Path string // "": there is none
	Size int64  // how much has been written, in bytes

	file *os.File
	buf  *bufio.Writer
	err  error
}

type key struct{}

// With puts d into the context of a call.
func With(ctx context.Context, d *Draft) context.Context { return context.WithValue(ctx, key{}, d) }

// From returns the draft of a call, nil where there is none.
func From(ctx context.Context) *Draft {
	d, _ := ctx.Value(key{}).(*Draft)
	return d
}

const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, bufferSize) }}

// Open begins to write. It is an error to do that twice.
func (d *Draft) Open() error {
	switch {
	case d == nil || d.Path == "":
		return errors.New("the gateway made no draft for a body: does the manifest declare MayReplaceBody?")
	case d.buf != nil || d.err != nil:
		return errors.New("a call can make one new body")
	}
	// The gateway made the file; whatever else is there is not it.
	f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
	if err != nil {
		d.err = err
		return err
	}
	d.file, d.buf = f, buffers.Get().(*bufio.Writer)
	d.buf.Reset(f)
	return nil
}

var errClosed = errors.New("the call of this body has ended")

// Write appends to the draft.
func (d *Draft) Write(p []byte) (int, error) {
	if d.buf == nil {
		return 0, errors.Join(d.err, errClosed)
	}
	n, err := d.buf.Write(p)
	d.Size += int64(n)
	if err != nil {
		d.err = err
	}
	return n, err
}

// Close ends writing, and returns the first error that there was since Open.
func (d *Draft) Close() error {
	if d.buf == nil {
		return d.err
	}
	if err := d.buf.Flush(); d.err == nil {
		d.err = err
	}
	d.buf.Reset(nil)
	buffers.Put(d.buf)
	d.buf = nil
	if err := d.file.Close(); d.err == nil {
		d.err = err
	}
	return d.err
}
