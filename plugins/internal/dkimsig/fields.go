package dkimsig

import (
	"crypto/sha256"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Fields are the fields of a header, to be signed.
type Fields struct {
	byName map[string][][]byte // raw, from the top
	buf    []byte
}

// NewFields indexes a header.
func NewFields(h mail.Header) *Fields {
	f := &Fields{byName: make(map[string][][]byte)}
	for _, field := range h.Fields {
		name := strings.ToLower(field.Name)
		f.byName[name] = append(f.byName[name], field.Raw())
	}
	return f
}

// Count is how many fields of that name, in lower case, there are.
func (f *Fields) Count(name string) int { return len(f.byName[name]) }

// Named returns the fields of that name, in lower case, from the top, as they stand.
func (f *Fields) Named(name string) [][]byte { return f.byName[name] }

// Hash is what is signed: the named fields (in lower case), each name standing for the
// lowest field that was not taken yet and for nothing where there is none (RFC 6376 §5.4.2),
// and at the end own, the signature's own field, as [WithoutValue] left it.
func (f *Fields) Hash(names []string, c Canon, own []byte) []byte {
	h := sha256.New()
	taken := make(map[string]int)
	for _, name := range names {
		all := f.byName[name]
		i := len(all) - 1 - taken[name]
		if i < 0 {
			continue
		}
		taken[name]++
		f.buf = appendField(f.buf[:0], all[i], c)
		h.Write(f.buf)
	}
	f.buf = appendField(f.buf[:0], own, c)
	h.Write(f.buf[:len(f.buf)-2]) // RFC 6376 §3.7: without its line end
	return h.Sum(nil)
}

// AppendRelaxed appends a whole field, as it stands, in the relaxed form with its line end.
func AppendRelaxed(dst, raw []byte) []byte { return appendField(dst, raw, Relaxed) }
