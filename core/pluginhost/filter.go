package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/postern-mail/postern/core/pluginhost/draft"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Filter is a filter plugin, whatever process it has at the moment.
type Filter struct {
	slot *slot
	host *Host
}

var errNotAFilter = errors.New("it is no filter")

// Filter returns the filter of that name; false if no plugin of that name is configured, or it
// is no filter.
func (h *Host) Filter(name string) (*Filter, bool) {
	sl := h.find(name)
	if sl == nil || !sl.description().Filter {
		return nil, false
	}
	return &Filter{sl, h}, true
}

// Manifest is what the plugin declares.
func (f *Filter) Manifest() sdk.Manifest { return f.slot.description().Manifest }

// Filter asks the plugin about one version of a message. The verdict it returns keeps the
// contract and the manifest. An error is a [*Failure], or that of ctx when the caller gave
// up.
func (f *Filter) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	v, _, err := f.Rewrite(ctx, m, 0, nil)
	return v, err
}

// Rewrite is [Filter.Filter] for a caller that can take another body, of at most max bytes.
// It is handed to keep, in wire form or with an error, and comes back as what keep made of
// it where the verdict has an edit that says so, else as the zero Body. An error that is
// no failure of the plugin, but of keep or of the host, has the Reason "gateway".
func (f *Filter) Rewrite(ctx context.Context, m *mail.Message, max int64, keep func(io.Reader) (mail.Body, error)) (*sdk.Verdict, mail.Body, error) {
	var v *sdk.Verdict
	var body mail.Body
	var own error
	err := f.slot.judged(ctx, m.Envelope.Client, func(ctx context.Context, p *process) (err error) {
		own = nil
		if !p.desc.Filter {
			return fail(f.slot.name, Error, errNotAFilter)
		}
		req, err := wire.FilterRequest(m, p.desc.Manifest.Needs)
		if err != nil {
			return fail(f.slot.name, Error, err)
		}
		var file *os.File
		if keep != nil && p.desc.Manifest.May&sdk.MayReplaceBody != 0 {
			if file, own = f.host.drafts.New(p.spec.User); own != nil {
				return nil
			}
			defer draft.Discard(file)
			req.Draft = file.Name()
		}
		pv, err := p.filter.Filter(ctx, req)
		if err != nil {
			return err
		}
		if v, err = wire.VerdictDraft(pv, p.desc.Manifest, &m.Envelope, req.Draft); err != nil {
			return garbage(f.slot.name, fmt.Errorf("its verdict breaks the contract: %w", err))
		}
		if room, yes := replaces(v, max); yes {
			r := draft.NewReader(file, room)
			if body, own = keep(r); r.Fault() != nil {
				own = nil
				return garbage(f.slot.name, fmt.Errorf("its new body breaks the contract: %w", r.Fault()))
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, mail.Body{}, err
	case own != nil:
		return nil, mail.Body{}, &ownFault{own}
	}
	return v, body, nil
}

// wrapping is how much larger than a message the body of a copy may be that has the message in
// it: by its header, and a report.
const wrapping = proto.MaxHeader + 1<<20

// replaces reports whether a verdict has a body of its own, and how large that may be.
func replaces(v *sdk.Verdict, max int64) (room int64, yes bool) {
	for i := range v.Edits {
		switch {
		case v.Edits[i].Kind == sdk.BodyReplace:
			return max, true
		case v.Edits[i].BodyDraft != "":
			room, yes = max+wrapping, true
		}
	}
	return room, yes
}
