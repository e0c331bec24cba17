package intake

import (
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/sdk/mail"
)

// sentOn splits a version by the reverse-path with which its recipients get it: mail that an
// alias, a redirect or a plugin sends on to another domain has one of ours there (SRS). Copies have a
// reverse-path of their own, and mail that plugins have yet to see keeps its own until then.
func (in *Intake) sentOn(src *source, v *pipeline.Version) []*pipeline.Version {
	if src.rules.SendOn == nil || v.Class.IsCopy() || src.class.IsCopy() || !v.Run.Complete || v.ReversePath.IsZero() {
		return []*pipeline.Version{v}
	}
	var parts []*pipeline.Version
	index := make(map[mail.Path]int)
	for _, r := range v.Recipients {
		reverse := v.ReversePath
		if !r.Recipient.Original.IsZero() || r.From < 0 || src.env.Origin == mail.Redirected {
			reverse = src.rules.SendOn(v.ReversePath, r.Recipient.Path)
		}
		i, ok := index[reverse]
		if !ok {
			i = len(parts)
			index[reverse] = i
			part := *v
			part.ReversePath, part.Recipients = reverse, nil
			parts = append(parts, &part)
		}
		parts[i].Recipients = append(parts[i].Recipients, r)
	}
	if len(parts) == 0 {
		return []*pipeline.Version{v}
	}
	return parts
}

// sender is who hears what became of a message with that reverse-path.
func (r *Rules) sender(reverse mail.Path) mail.Path {
	if r.SentBy == nil || reverse.IsZero() {
		return reverse
	}
	return r.SentBy(reverse)
}
