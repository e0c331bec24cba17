package dkimsig

import (
	"bufio"
	"context"
	"io"
	"sync"

	"github.com/postern-mail/postern/sdk/mail"
)

// Buffers are for reading bodies. The zero value is ready; it may be used concurrently.
type Buffers struct{ pool sync.Pool }

const bufferSize = 64 << 10

// copy reads r once, to its end, into each of the hashes.
func (b *Buffers) copy(ctx context.Context, r io.Reader, hashes []*BodyHash) error {
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

// Read reads a message's body, once, if a hash of it is wanted.
func (b *Bodies) Read(ctx context.Context, bufs *Buffers, m *mail.Message) error {
	var hashes []*BodyHash
	for _, c := range []Canon{Simple, Relaxed} {
		if b.wanted[c] {
			hashes = append(hashes, NewBodyHash(c))
		}
	}
	if hashes == nil {
		return nil
	}
	body, err := m.Body.Open()
	if err != nil {
		return err
	}
	defer body.Close()
	var r io.Reader = body
	if !m.Header.Separated() {
		if r, err = afterBlank(body); err != nil {
			return err
		}
	}
	if err := bufs.copy(ctx, r, hashes); err != nil {
		return err
	}
	for _, h := range hashes {
		b.sums[h.canon], b.sizes[h.canon] = h.Sum()
	}
	return nil
}

// afterBlank skips everything up to the first blank line, and that. A message may have no
// blank line, or begin with what is no field: to the rest of the world its header then ends
// at the first blank line, wherever that is.
func afterBlank(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 4096)
	for begin := true; ; {
		line, err := b.ReadSlice('\n')
		if begin && string(line) == "\r\n" || err == io.EOF {
			return b, nil
		}
		if err != nil && err != bufio.ErrBufferFull {
			return nil, err
		}
		begin = err == nil
	}
}

// Sum returns the hash and the length, in bytes, of the canonicalized body.
func (b *Bodies) Sum(c Canon) ([]byte, int64) { return b.sums[c], b.sizes[c] }
