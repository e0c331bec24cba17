package sieve

import (
	"bytes"
	"slices"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// headerEdits are the edits that make one header of another: first what is removed, from the
// bottom, then what is added, from the top.
func headerEdits(old, now mail.Header) []sdk.Edit {
	if bytes.Equal(old.Block(), now.Block()) {
		return nil
	}
	from, to := fields(old), fields(now)
	var removed, added []sdk.Edit
	next := 0
	for i, f := range to {
		k := slices.IndexFunc(from[next:], func(o mail.Field) bool { return bytes.Equal(o.Raw(), f.Raw()) })
		if k < 0 {
			_, value, _ := strings.Cut(string(bytes.TrimSuffix(f.Raw(), []byte("\r\n"))), ":")
			added = append(added, sdk.Edit{Kind: sdk.HeaderInsert, Index: i, Name: f.Name, Value: strings.TrimPrefix(value, " ")})
			continue
		}
		for ; k > 0; k-- {
			removed = append(removed, removal(from, next))
			next++
		}
		next++
	}
	for ; next < len(from); next++ {
		removed = append(removed, removal(from, next))
	}
	slices.Reverse(removed)
	return append(removed, added...)
}

func fields(h mail.Header) []mail.Field {
	var list []mail.Field
	for _, f := range h.Fields {
		list = append(list, f)
	}
	return list
}

// removal removes the i-th of the fields.
func removal(list []mail.Field, i int) sdk.Edit {
	n := 0
	for _, f := range list[:i] {
		if strings.EqualFold(f.Name, list[i].Name) {
			n++
		}
	}
	return sdk.Edit{Kind: sdk.HeaderRemove, Name: list[i].Name, Index: n}
}
