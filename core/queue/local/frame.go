package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/postern-mail/postern/core/disk"
)

const (
	frameHeader   = 32
	segmentHeader = 64
	firstFrame    = 2 * segmentHeader
	maxPayload    = 256 << 20
)

// magic ends in the version in which segments are written; older ones are read.
const magic = "postern\x02"

type marker [8]byte

// segHeader is what a segment says of itself and its predecessor.
type segHeader struct {
	version byte // as read
	number  uint32
	marker  marker
	prev    uint32 // 0: none
	prevLen int64  // synced length of the predecessor
	clean   bool   // the predecessor's file ends there
	created int64  // Unix seconds
}

// encode gives both copies.
func (h *segHeader) encode() []byte {
	b := make([]byte, segmentHeader, firstFrame)
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[8:], uint64(h.number))
	copy(b[16:], h.marker[:])
	binary.LittleEndian.PutUint64(b[24:], uint64(h.prev))
	binary.LittleEndian.PutUint64(b[32:], uint64(h.prevLen))
	if h.clean {
		b[40] = 1
	}
	binary.LittleEndian.PutUint64(b[44:], uint64(h.created))
	binary.LittleEndian.PutUint32(b[60:], checksum(b[:60]))
	return append(b, b...)
}

var (
	errHeader  = errors.New("segment header is damaged")
	errVersion = errors.New("written by a newer version of postern")
)

// decodeSegHeader takes the first copy that is whole.
func decodeSegHeader(b []byte) (segHeader, error) {
	for ; len(b) >= segmentHeader; b = b[segmentHeader:] {
		if checksum(b[:60]) != binary.LittleEndian.Uint32(b[60:]) || string(b[:7]) != magic[:7] {
			continue
		}
		if b[7] == 0 || b[7] > magic[7] {
			return segHeader{}, errVersion
		}
		return segHeader{
			version: b[7],
			number:  uint32(binary.LittleEndian.Uint64(b[8:])),
			marker:  marker(b[16:24]),
			prev:    uint32(binary.LittleEndian.Uint64(b[24:])),
			prevLen: int64(binary.LittleEndian.Uint64(b[32:])),
			clean:   b[40] == 1,
			created: int64(binary.LittleEndian.Uint64(b[44:])),
		}, nil
	}
	return segHeader{}, errHeader
}

// frame is the header of a frame.
type frame struct {
	seq   uint64
	size  int   // of the payload
	group int64 // where the group begins that it was written with
	sum   uint32
}

func (f *frame) put(b []byte, m marker) {
	copy(b, m[:])
	binary.LittleEndian.PutUint64(b[8:], f.seq)
	binary.LittleEndian.PutUint32(b[16:], uint32(f.size))
	binary.LittleEndian.PutUint32(b[20:], uint32(f.group))
	binary.LittleEndian.PutUint32(b[24:], f.sum)
	binary.LittleEndian.PutUint32(b[28:], checksum(b[:28]))
}

func decodeFrame(b []byte, m marker) (frame, bool) {
	if len(b) < frameHeader || marker(b[:8]) != m || checksum(b[:28]) != binary.LittleEndian.Uint32(b[28:]) {
		return frame{}, false
	}
	f := frame{
		seq:   binary.LittleEndian.Uint64(b[8:]),
		size:  int(binary.LittleEndian.Uint32(b[16:])),
		group: int64(binary.LittleEndian.Uint32(b[20:])),
		sum:   binary.LittleEndian.Uint32(b[24:]),
	}
	return f, f.size <= maxPayload
}

// gap is a piece of a segment that is no frame, or a damaged one.
type gap struct {
	from, to int64
	reason   string
}

// scan is the result of reading a segment.
type scan struct {
	end    int64 // behind the last whole frame
	synced int64 // everything before this was durable once
	gaps   []gap // damaged pieces, and a torn tail last
}

// scanFrames calls each for every whole frame of a segment between the header and limit.
// The payload is valid during the call. When each returns an error the frame counts as
// damaged.
func scanFrames(f disk.File, m marker, limit int64, each func(off int64, fr frame, payload []byte) error) (scan, error) {
	w := window{f: f, limit: limit}
	s := scan{end: firstFrame, synced: firstFrame}
	for off := int64(firstFrame); off < limit; {
		next, reason, err := scanOne(&w, m, off, &s, each)
		if err != nil {
			return s, err
		}
		if reason != "" {
			s.gaps = append(s.gaps, gap{off, next, reason})
		} else {
			s.end = next
		}
		off = next
	}
	return s, nil
}

// scanOne handles the frame at off and returns where the next one begins, and what is
// wrong with this one.
func scanOne(w *window, m marker, off int64, s *scan, each func(int64, frame, []byte) error) (int64, string, error) {
	head, err := w.at(off, frameHeader)
	if err != nil {
		return 0, "", err
	}
	fr, ok := decodeFrame(head, m)
	if !ok {
		next, err := w.find(off+1, m)
		return next, "frame header is damaged", err
	}
	end := off + frameHeader + int64(fr.size)
	if end > w.limit {
		next, err := w.find(off+1, m)
		return next, "frame is cut off", err
	}
	payload, err := w.at(off+frameHeader, fr.size)
	if err != nil {
		return 0, "", err
	}
	if checksum(payload) != fr.sum {
		// The length may be trusted: the header has a checksum of its own.
		return end, "frame has a wrong checksum", nil
	}
	s.synced = max(s.synced, fr.group)
	if err := each(off, fr, payload); err != nil {
		return end, err.Error(), nil
	}
	return end, "", nil
}

// window reads a file through a buffer.
type window struct {
	f     disk.File
	limit int64
	off   int64
	buf   []byte
}

const windowSize = 1 << 20

// at returns up to n bytes at off, fewer only at the limit.
func (w *window) at(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.limit-off))
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		want := int(min(int64(max(n, windowSize)), w.limit-off))
		if cap(w.buf) < want {
			w.buf = make([]byte, want)
		}
		w.buf, w.off = w.buf[:want], off
		got, err := w.f.ReadAt(w.buf, off)
		w.buf = w.buf[:got]
		if got < n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	i := off - w.off
	return w.buf[i : i+int64(n) : i+int64(n)], nil
}

// find returns where the next frame with a whole header begins, from off on, or the limit.
func (w *window) find(off int64, m marker) (int64, error) {
	for off < w.limit {
		b, err := w.at(off, windowSize)
		if err != nil {
			return 0, err
		}
		i := bytes.Index(b, m[:])
		switch {
		case i < 0 && off+int64(len(b)) >= w.limit:
			return w.limit, nil
		case i < 0:
			off += int64(len(b) - len(m) + 1)
			continue
		}
		off += int64(i)
		head, err := w.at(off, frameHeader)
		if err != nil {
			return 0, err
		}
		if _, ok := decodeFrame(head, m); ok {
			return off, nil
		}
		off++
	}
	return w.limit, nil
}
