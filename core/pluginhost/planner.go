package pluginhost

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Planner is a planner plugin, whatever process it has at the moment.
type Planner struct{ slot *slot }

var errNoPlanner = errors.New("it is no planner")

// Planner returns the planner of that name; false if no plugin of that name is configured,
// or it is no planner.
func (h *Host) Planner(name string) (*Planner, bool) {
	sl := h.find(name)
	if sl == nil || !sl.description().Planner {
		return nil, false
	}
	return &Planner{sl}, true
}

// Plan asks the plugin what the one recipient of m wants done. The plan keeps the contract
// and the manifest. It may ask twice; a plan has no side effects. An error is a [*Failure], or that of ctx when the caller gave up.
func (p *Planner) Plan(ctx context.Context, m *mail.Message) (*sdk.Plan, error) {
	var plan *sdk.Plan
	err := p.slot.judged(ctx, func(ctx context.Context, pr *process) error {
		if !pr.desc.Planner {
			return fail(p.slot.name, Error, errNoPlanner)
		}
		req, err := wire.PlanRequest(m, pr.desc.Manifest.Needs)
		if err != nil {
			return fail(p.slot.name, Error, err)
		}
		resp, err := proto.NewPlannerClient(pr.conn).Plan(ctx, req)
		if err != nil {
			return err
		}
		if plan, err = wire.Plan(resp, pr.desc.Manifest); err != nil {
			return fail(p.slot.name, Error, fmt.Errorf("its plan breaks the contract: %w", err))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return plan, nil
}
