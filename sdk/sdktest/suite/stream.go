package suite

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire/stream"
)

// streamed are the calls of filter and gate of one process, and what was wrong with its
// stream, if it serves one.
type streamed struct {
	filter proto.FilterClient
	gate   proto.GateClient

	mu    sync.Mutex
	fault error
}

// openCalls has filter and gate asked as the gateway would.
func (r *run) openCalls(p *process, streams bool) error {
	p.calls.filter, p.calls.gate = proto.NewFilterClient(p.conn), proto.NewGateClient(p.conn)
	if !streams {
		return nil
	}
	note := func(err error) {
		p.calls.mu.Lock()
		defer p.calls.mu.Unlock()
		p.calls.fault = errors.Join(p.calls.fault, err)
	}
	st, err := stream.Open(p.conn, stream.Events{Fault: note, Broken: func(err error) {
		if !p.isDead() {
			note(fmt.Errorf("the stream ended before the process: %w", callError("Stream", err)))
		}
	}})
	if err != nil {
		return callError("Stream", err)
	}
	p.calls.filter, p.calls.gate = st, st
	return nil
}

// answersOnce looks back at all calls over the stream.
func (r *run) answersOnce(ctx context.Context) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	if err := r.health(ctx, p); err != nil {
		return "", err
	}
	p.calls.mu.Lock()
	defer p.calls.mu.Unlock()
	return "", p.calls.fault
}
