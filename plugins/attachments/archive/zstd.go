package archive

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// ZstdMemory is how much a reader of Zstd takes, in bytes: RFC 8878 §3.1.1.1.2 recommends to
// support windows of 8 MiB; the decoder holds up to twice as much.
const (
	zstdWindow = 8 << 20
	ZstdMemory = 2*zstdWindow + 2<<20
)

// ErrMemory is the error of something that takes more memory than it may.
var ErrMemory = errors.New("too much memory")

// Zstd returns a reader of what is packed in r. It decodes in the goroutine that reads, so
// that it needs no end.
func Zstd(r io.Reader) (io.Reader, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeBuffersBelow(0), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return nil, err
	}
	return zstdReader{d}, nil
}

type zstdReader struct{ d *zstd.Decoder }

func (z zstdReader) Read(p []byte) (n int, err error) {
	defer recovered(&n, &err)
	n, err = z.d.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = fmt.Errorf("%w: %w", ErrMemory, err)
	}
	return n, err
}
