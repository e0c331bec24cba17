package dkimsig

import (
	"context"
	"io"
	"sync"

	"github.com/postern-mail/postern/sdk/mail"
)

// Buffers are for reading bodies. The zero value is ready; it may be used concurrently.
type Buffers struct{ pool sync.Pool }

const bufferSize = 64 << 10

// Copy reads a body once, to its end, into each of the hashes.
func (b *Buffers) Copy(ctx context.Context, body mail.Body, hashes ...*BodyHash) error {
	r, err := body.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return b.Read(ctx, r, hashes...)
}

// Read is Copy from a reader.
func (b *Buffers) Read(ctx context.Context, r io.Reader, hashes ...*BodyHash) error {
	buf, ok := b.pool.Get().(*[]byte)
	if !ok {
		p := make([]byte, bufferSize)
		buf = &p
	}
	defer b.pool.Put(buf)
	for {
		n, err := r.Read(*buf)
		for _, h := range hashes {
			h.Write((*buf)[:n])
		}
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// Bodies are the hashes of one body in the canonicalizations that were asked for.
type Bodies struct {
	wanted [2]bool
	sums   [2][]byte
	sizes  [2]int64
}

// Want asks for a canonicalization.
func (b *Bodies) Want(c Canon) { b.wanted[c] = true }

// Read reads the body, once, if a hash of it is wanted.
func (b *Bodies) Read(ctx context.Context, bufs *Buffers, body mail.Body) error {
	var hashes []*BodyHash
	for _, c := range []Canon{Simple, Relaxed} {
		if b.wanted[c] {
			hashes = append(hashes, NewBodyHash(c))
		}
	}
	if hashes == nil {
		return nil
	}
	if err := bufs.Copy(ctx, body, hashes...); err != nil {
		return err
	}
	for _, h := range hashes {
		b.sums[h.canon], b.sizes[h.canon] = h.Sum()
	}
	return nil
}

// Sum returns the hash and the length, in bytes, of the canonicalized body.
func (b *Bodies) Sum(c Canon) ([]byte, int64) { return b.sums[c], b.sizes[c] }
