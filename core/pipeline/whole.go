package pipeline

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/postern-mail/postern/sdk"
)

// maxWhole is how long [sdk.NoteEnvelope] may get, about, in bytes.
const maxWhole = 24 << 10

// whole makes [sdk.NoteEnvelope] for a plugin that may send copies; "" where v is the whole message
// and goes on. Before are the versions that come before v, as the plugin's answers left
// them; the others, v the first of them, it has not been asked about.
func (s *Step) whole(v Version, before, others []Version) string {
	if s.manifest().May&sdk.MayCopy == 0 {
		return ""
	}
	switch {
	case v.Class.IsCopy():
		return sdk.EnvelopeCopy
	case slices.ContainsFunc(before, func(o Version) bool { return !o.Class.IsCopy() && slices.Contains(o.Run.Done, s.Name) }):
		return sdk.EnvelopeAsked // who was first has the list; to make one for each would be quadratic
	case len(before) == 0 && len(others) == 1 && v.Disposition == Deliver:
		return ""
	}
	var fates []sdk.Fate
	size, left := 0, 0
	for _, o := range slices.Concat(before, others) {
		if o.Class.IsCopy() {
			continue
		}
		for _, r := range o.Recipients {
			f := sdk.Fate{To: r.Path.String(), Given: r.Given().String(), ORCPT: r.ORCPT}
			if o.Disposition != Deliver {
				f.Becomes, f.Why = o.Disposition.String(), o.Reason
				if !o.Status.IsZero() {
					f.Why += ": " + o.Status.Error()
				}
			}
			if size += len(f.To) + len(f.Given) + len(f.ORCPT) + len(f.Why) + 60; size > maxWhole {
				left++
				continue
			}
			fates = append(fates, f)
		}
	}
	if left > 0 {
		fates = append(fates, sdk.Fate{Becomes: "unlisted", Why: fmt.Sprintf("%d more recipients", left)})
	}
	text, err := json.Marshal(fates)
	if err != nil {
		return "" // strings only: it does not happen
	}
	return string(text)
}
