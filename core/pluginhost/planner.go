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

// Planner is a planner plugin, whatever process it has at the moment.
type Planner struct {
	slot *slot
	host *Host
}

var errNoPlanner = errors.New("it is no planner")

// Planner returns the planner of that name; false if no plugin of that name is configured,
// or it is no planner.
func (h *Host) Planner(name string) (*Planner, bool) {
	sl := h.find(name)
	if sl == nil || !sl.description().Planner {
		return nil, false
	}
	return &Planner{sl, h}, true
}

// Plan asks the plugin what the one recipient of m wants done. The plan keeps the contract
// and the manifest. It may ask twice; a plan has no side effects. An error is a [*Failure], or that of ctx when the caller gave up.
//
// Bodies that the plugin wrote, of at most max bytes each, are handed to keep, in wire form or
// with an error; what keep made of them comes back by action. An error that is no failure of the
// plugin, but of keep or of the host, has the Reason "gateway".
func (p *Planner) Plan(ctx context.Context, m *mail.Message, max int64, keep func(io.Reader) (mail.Body, error)) (*sdk.Plan, map[int]mail.Body, error) {
	var plan *sdk.Plan
	var bodies map[int]mail.Body
	var own error
	err := p.slot.judged(ctx, m.Envelope.Client, func(ctx context.Context, pr *process) error {
		own = nil
		if !pr.desc.Planner {
			return fail(p.slot.name, Error, errNoPlanner)
		}
		req, err := wire.PlanRequest(m, pr.desc.Manifest.Needs)
		if err != nil {
			return fail(p.slot.name, Error, err)
		}
		var file *os.File
		if keep != nil && pr.desc.Manifest.May&sdk.MayReplaceBody != 0 {
			if file, own = p.host.drafts.New(pr.spec.User); own != nil {
				return nil
			}
			defer draft.Discard(file)
			req.Draft = file.Name()
		}
		resp, err := proto.NewPlannerClient(pr.conn).Plan(ctx, req)
		if err != nil {
			return err
		}
		if plan, err = wire.PlanDraft(resp, pr.desc.Manifest, req.Draft); err != nil {
			return fail(p.slot.name, Error, fmt.Errorf("its plan breaks the contract: %w", err))
		}
		var fault error
		if bodies, fault, own = sections(plan, file, max, keep); fault != nil {
			return fail(p.slot.name, Error, fmt.Errorf("a new body breaks the contract: %w", fault))
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, nil, err
	case own != nil:
		return nil, nil, &ownFault{own}
	}
	return plan, bodies, nil
}

// sections keeps the bodies of a plan, each once. fault is of the plugin, err of keep.
func sections(plan *sdk.Plan, file *os.File, max int64, keep func(io.Reader) (mail.Body, error)) (bodies map[int]mail.Body, fault, err error) {
	seen := make(map[sdk.Section]mail.Body)
	for i, a := range plan.Actions {
		s := a.NewBody
		if s.IsZero() {
			continue
		}
		body, ok := seen[s]
		if !ok {
			r := draft.NewReader(io.NewSectionReader(file, s.Offset, s.Size), max)
			body, err = keep(r)
			switch {
			case r.Fault() != nil:
				return nil, r.Fault(), nil
			case err != nil:
				return nil, nil, err
			case body.Size != s.Size:
				return nil, errSection, nil
			}
			seen[s] = body
		}
		if bodies == nil {
			bodies = make(map[int]mail.Body)
		}
		bodies[i] = body
	}
	return bodies, nil, nil
}

var errSection = errors.New("it ends beyond the draft")
