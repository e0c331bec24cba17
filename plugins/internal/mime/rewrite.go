package mime

import (
	"cmp"
	"io"
	"slices"
)

// Replacement puts something in the place of a range of the body.
type Replacement struct {
	From, To int64
	With     []byte
}

// Replace is the replacement of a whole part, header and body, by another one; not for the
// root, whose header is not in the body. With is a header, a blank line and a body, without
// a line end at the end.
func (t *Tree) Replace(p *Part, with []byte) Replacement {
	r := Replacement{From: p.HeaderStart, To: p.End, With: with}
	if p.glued {
		r.With = append([]byte("\r\n"), with...)
	}
	if p.End == p.follows {
		// No line end stands before what follows: the part was empty, or the last of a
		// message that breaks off.
		r.With = append(r.With[:len(r.With):len(r.With)], '\r', '\n')
	}
	return r
}

// ReplaceBody is the replacement of the body of a part. With has no line end at the end
// that the boundary brings.
func (t *Tree) ReplaceBody(p *Part, with []byte) Replacement {
	r := t.Replace(p, with)
	r.From = p.BodyStart
	return r
}

// Rewrite copies the body to w with ranges replaced. The ranges must not overlap; their
// order does not matter. Every byte outside of them is copied as it is.
func (t *Tree) Rewrite(w io.Writer, rs []Replacement) error {
	rs = slices.SortedFunc(slices.Values(rs), func(a, b Replacement) int { return cmp.Compare(a.From, b.From) })
	at := int64(0)
	copyTo := func(to int64) error {
		r, err := t.section(at, to)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(w, r)
		return err
	}
	for _, r := range rs {
		if err := copyTo(r.From); err != nil {
			return err
		}
		if _, err := w.Write(r.With); err != nil {
			return err
		}
		at = r.To
	}
	return copyTo(t.body.Size)
}
