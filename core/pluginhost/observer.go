package pluginhost

import (
	"context"
	"errors"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Observer is an observer plugin, whatever process it has at the moment.
type Observer struct{ slot *slot }

var errNoObserver = errors.New("it is no observer")

// Observer returns the observer of that name; false if no plugin of that name is configured,
// or it is no observer.
func (h *Host) Observer(name string) (*Observer, bool) {
	sl := h.find(name)
	if sl == nil || !sl.description().Observer {
		return nil, false
	}
	return &Observer{sl}, true
}

// Observe tells the plugin of events. An error is a [*Failure], or that of ctx when the
// caller gave up: they are to be told again.
func (o *Observer) Observe(ctx context.Context, events []sdk.Event) error {
	return o.slot.call(ctx, func(ctx context.Context, p *process) error {
		if !p.desc.Observer {
			return fail(o.slot.name, Error, errNoObserver)
		}
		_, err := proto.NewObserverClient(p.conn).Observe(ctx, wire.ObserveRequest(events))
		return err
	})
}
