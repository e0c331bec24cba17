package sdk

import "github.com/postern-mail/postern/sdk/mail"

// InsertHeader adds a field at a position among all fields: 0 is the top, below 0 the end.
func (v *Verdict) InsertHeader(index int, name, value string) *Verdict {
	return v.edit(Edit{Kind: HeaderInsert, Index: index, Name: name, Value: value})
}

// ChangeHeader gives the index-th field of that name (from 0) another value; an empty one
// removes it. Where there is no such field it is added at the end.
func (v *Verdict) ChangeHeader(index int, name, value string) *Verdict {
	return v.edit(Edit{Kind: HeaderChange, Index: index, Name: name, Value: value})
}

// RemoveHeader removes the index-th field of that name (from 0); below 0: all of them.
func (v *Verdict) RemoveHeader(index int, name string) *Verdict {
	return v.edit(Edit{Kind: HeaderRemove, Index: index, Name: name})
}

// AddRecipient sends the message to one more address.
func (v *Verdict) AddRecipient(path mail.Path) *Verdict {
	return v.edit(Edit{Kind: RecipientAdd, Path: path})
}

// RemoveRecipient does not send the message there; that goes on record.
func (v *Verdict) RemoveRecipient(path mail.Path) *Verdict {
	return v.edit(Edit{Kind: RecipientRemove, Path: path})
}

// SetReversePath makes bounces go to path; the zero Path means that there are none.
func (v *Verdict) SetReversePath(path mail.Path) *Verdict {
	return v.edit(Edit{Kind: ReversePath, Path: path})
}

// Only limits the edit that was added last to these recipients, by index in the envelope.
func (v *Verdict) Only(recipients ...int) *Verdict {
	if n := len(v.Edits); n > 0 {
		v.Edits[n-1].Recipients = append([]int{}, recipients...)
	}
	return v
}

func (v *Verdict) edit(e Edit) *Verdict {
	v.Edits = append(v.Edits, e)
	return v
}
