package suite

import (
	"context"
	"fmt"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/internal/samples"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// observe tells of events, one call at a time, and of the same ones again.
func (r *run) observe(ctx context.Context) {
	all := samples.Events()
	many := make([]sdk.Event, 0, 500)
	for i := range cap(many) {
		e := all[i%len(all)]
		e.Seq = 1000 + uint64(i)
		many = append(many, e)
	}
	later := all[0]
	later.Seq, later.Type = 5000, 99
	for _, c := range []struct {
		name   string
		events [][]sdk.Event
	}{
		{"events of each type", [][]sdk.Event{all}},
		{"the same events again", [][]sdk.Event{all[3:]}}, // after a failure, or a crash
		{"one event at a time", [][]sdk.Event{all[:1], all[1:2], all[2:3]}},
		{"500 events", [][]sdk.Event{many}},
		{"an event of a type that is newer than it", [][]sdk.Event{{later}}},
	} {
		if !r.check(ctx, "observer: "+c.name, func(ctx context.Context) (string, error) { return "", r.tell(ctx, c.events) }) {
			return // what follows would be told to somebody who has not taken what was before
		}
	}
}

func (r *run) tell(ctx context.Context, batches [][]sdk.Event) error {
	p, err := r.live(ctx)
	if err != nil {
		return err
	}
	for _, events := range batches {
		ctx, cancel := r.limited(ctx)
		_, err := proto.NewObserverClient(p.conn).Observe(ctx, wire.ObserveRequest(events))
		cancel()
		if err != nil {
			return fmt.Errorf("%w\nit would be told of them again", callError("Observe", err))
		}
	}
	return nil
}
