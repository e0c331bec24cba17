package pluginhost

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/wire"
)

// Gate is a gate plugin, whatever process it has at the moment.
type Gate struct{ slot *slot }

var errNotAGate = errors.New("it is no gate")

// Gate returns the gate of that name; false if no plugin of that name is configured, or it
// is no gate.
func (h *Host) Gate(name string) (*Gate, bool) {
	sl := h.find(name)
	if sl == nil || !sl.description().Gate {
		return nil, false
	}
	return &Gate{sl}, true
}

// Manifest is what the plugin declares.
func (g *Gate) Manifest() sdk.Manifest { return g.slot.description().Manifest }

// Gate asks the plugin about what a client is about to do. The verdict it returns keeps
// the contract and the manifest. An error is a [*Failure], or that of ctx when the caller
// gave up.
func (g *Gate) Gate(ctx context.Context, a *sdk.Attempt) (*sdk.Verdict, error) {
	var v *sdk.Verdict
	err := g.slot.call(ctx, func(ctx context.Context, p *process) error {
		if !p.desc.Gate {
			return fail(g.slot.name, Error, errNotAGate)
		}
		if p.desc.Manifest.Stages&a.Stage == 0 {
			v = sdk.Continue() // the process of now does not ask for this any more
			return nil
		}
		pv, err := p.gates.Gate(ctx, wire.GateRequest(a))
		if err != nil {
			return err
		}
		if v, err = wire.GateVerdict(pv, p.desc.Manifest); err != nil {
			return fail(g.slot.name, Error, fmt.Errorf("its verdict breaks the contract: %w", err))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}
