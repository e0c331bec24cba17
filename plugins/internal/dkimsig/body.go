package dkimsig

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// BodyHash is a writer that hashes a body, canonicalized.
type BodyHash struct {
	canon Canon
	hash  hash.Hash
	out   []byte // canonicalized, not yet hashed
	n     int64  // canonicalized bytes so far, in out too
	ends  int64  // line ends that are not written yet: at the end of the body they are nothing
	cr    bool   // the last byte was a CR, and may begin a line end
	white bool   // white space in this line that is not written yet (relaxed)
}

// hashPiece is how much is hashed at once, in bytes.
const hashPiece = 8 << 10

// NewBodyHash returns the hash of an empty body so far.
func NewBodyHash(c Canon) *BodyHash {
	return &BodyHash{canon: c, hash: sha256.New(), out: make([]byte, 0, hashPiece)}
}

// Write takes the next part of the body, in wire form. It never fails.
func (b *BodyHash) Write(p []byte) (int, error) {
	n := len(p)
	if b.cr && n > 0 {
		b.cr = false
		if p[0] == '\n' {
			b.endLine()
			p = p[1:]
		} else {
			b.line([]byte("\r"))
		}
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			b.line(p)
			break
		}
		b.line(p[:i])
		switch {
		case i+1 == len(p):
			b.cr = true
			return n, nil
		case p[i+1] == '\n':
			b.endLine()
			p = p[i+2:]
		default:
			b.line(p[i : i+1])
			p = p[i+1:]
		}
	}
	return n, nil
}

func (b *BodyHash) endLine() {
	b.white = false
	b.ends++
}

// line takes a part of a line without a CR.
func (b *BodyHash) line(p []byte) {
	if b.canon == Simple {
		b.add(p)
		return
	}
	for len(p) > 0 {
		if p[0] == ' ' || p[0] == '\t' {
			b.white = true
			p = p[1:]
			continue
		}
		n := calm(p)
		b.add(p[:n])
		p = p[n:]
	}
}

// calm is how many bytes at the start of p, at least one, stay as they are: words with one
// space between them.
func calm(p []byte) int {
	end := len(p)
	if i := bytes.IndexByte(p, '\t'); i >= 0 {
		end = i
	}
	if i := bytes.Index(p[:end], []byte("  ")); i >= 0 {
		end = i
	}
	for end > 1 && p[end-1] == ' ' {
		end--
	}
	return end
}

// add writes bytes of the canonical form, after the line ends that turned out to count.
func (b *BodyHash) add(p []byte) {
	if len(p) == 0 {
		return
	}
	for ; b.ends > 0; b.ends-- {
		b.put("\r\n")
	}
	if b.white {
		b.white = false
		b.put(" ")
	}
	b.n += int64(len(p))
	if !b.room(len(p)) {
		b.hash.Write(p)
		return
	}
	b.out = append(b.out, p...)
}

func (b *BodyHash) put(s string) {
	b.n += int64(len(s))
	b.room(len(s))
	b.out = append(b.out, s...)
}

// room makes room for n bytes in out, and reports whether they fit there at all.
func (b *BodyHash) room(n int) bool {
	if len(b.out)+n > cap(b.out) {
		b.hash.Write(b.out)
		b.out = b.out[:0]
	}
	return n <= cap(b.out)
}

// Sum ends the body and returns its hash and its canonicalized length in bytes.
func (b *BodyHash) Sum() ([]byte, int64) {
	if b.cr {
		b.cr = false
		b.line([]byte("\r"))
	}
	// The last line has its end; an empty body is one in the simple form, and nothing in
	// the relaxed form (RFC 6376 §3.4.3, §3.4.4).
	b.ends = 0
	if b.n > 0 || b.canon == Simple {
		b.put("\r\n")
	}
	b.hash.Write(b.out)
	b.out = b.out[:0]
	return b.hash.Sum(nil), b.n
}
