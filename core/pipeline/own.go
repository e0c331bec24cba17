package pipeline

import (
	"slices"
	"strings"

	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// A forgery is a header field that a message brought along though only a plugin of ours may
// write it. It is taken away at the plugin's place in the order, whatever comes of the call: those
// before it, which verify signatures, and the plugin itself see the message as it came.
type forgery struct {
	marked Version // those fields have no value but the mark
	names  []string
}

// forgedMark is the value of such a field while edits are made: they count the fields as the
// plugin saw them, and what they put in stays. No field of a plugin has a NUL.
const forgedMark = ":\x00\r\n"

// forged looks for fields that s owns. Those that a plugin owns as well which has answered
// already are that plugin's: what a stranger brought is gone since.
func (p *Pipeline) forged(s *Step, v Version) forgery {
	f := forgery{marked: v}
	mine := s.manifest()
	if len(mine.Owns) == 0 {
		return f
	}
	var before []sdk.Manifest
	for i := range p.Steps {
		if o := &p.Steps[i]; slices.Contains(v.Run.Done, o.Name) {
			before = append(before, o.manifest())
		}
	}
	f.marked.Header.ReplaceIf(func(h mail.Field) ([]byte, bool) {
		if !mine.OwnsField(h.Name) || slices.ContainsFunc(before, func(m sdk.Manifest) bool { return m.OwnsField(h.Name) }) {
			return nil, false
		}
		f.names = append(f.names, h.Name)
		return []byte(h.Name + forgedMark), true
	})
	return f
}

// remove takes the fields out of what the step has made of v. A version about which its plugin
// will be asked again stays as it came.
func (f *forgery) remove(s *Step, v Version, made []Version, event *trace.Event) {
	if len(f.names) == 0 {
		return
	}
	removed := false
	for i := range made {
		m := &made[i]
		if !slices.Contains(m.Run.Done, s.Name) {
			m.Header = v.Header
			continue
		}
		m.Header.RemoveIf(func(h mail.Field) bool { return strings.HasSuffix(string(h.Raw()), forgedMark) })
		removed = true
	}
	if removed {
		event.Reason = strings.TrimPrefix(event.Reason+"; removed what the message brought: "+f.list(), "; ")
	}
}

// list names the fields for the trace, each once, and not all of many.
func (f *forgery) list() string {
	const most = 10
	var list []string
	seen := make(map[string]bool)
	for _, name := range f.names {
		if key := strings.ToLower(name); !seen[key] {
			seen[key] = true
			if len(list) == most {
				return strings.Join(list, ", ") + " and others"
			}
			list = append(list, name[:min(len(name), 80)])
		}
	}
	return strings.Join(list, ", ")
}

// manifest is what the plugin declares now; the zero value where it cannot tell.
func (s *Step) manifest() sdk.Manifest {
	if f, ok := s.Filter.(interface{ Manifest() sdk.Manifest }); ok {
		return f.Manifest()
	}
	return sdk.Manifest{}
}
