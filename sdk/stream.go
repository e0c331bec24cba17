package sdk

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk/internal/frame"
	"github.com/postern-mail/postern/sdk/proto"
)

// Filters and gates are asked over one stream, on which calls and answers carry a number:
// that costs a fraction of a gRPC call for each.

// streaming is the plugin's end of Plugin.Stream.
type streaming struct {
	server *server
	rpc    proto.Plugin_StreamServer
	ctx    context.Context // of all calls
	work   chan *asked
	idle   atomic.Int32 // workers that wait

	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc // of the calls under way
	answers []frame.Frame                 // to be sent
	sending bool                          // somebody does
}

// asked is a call under way.
type asked struct {
	call   *proto.Call
	ctx    context.Context
	cancel context.CancelFunc
}

const (
	maxIdle    = 16       // workers that wait for work
	smallBatch = 64 << 10 // how large a message of more than one answer may become, in bytes
)

// Stream serves the host's calls until it ends the stream.
func (s *server) Stream(rpc proto.Plugin_StreamServer) error {
	ctx, cancel := context.WithCancel(WithHost(rpc.Context(), s.host))
	defer cancel() // lets the workers go as well
	st := &streaming{server: s, rpc: rpc, ctx: ctx, work: make(chan *asked), cancels: make(map[uint64]context.CancelFunc)}
	for {
		batch, err := rpc.Recv()
		if err != nil {
			return nil // the host is gone, or does not want to go on
		}
		for _, c := range batch.Calls {
			if c.Cancel {
				st.end(c.Id)
			} else {
				st.begin(c)
			}
		}
	}
}

// begin hands a call to a worker.
func (st *streaming) begin(c *proto.Call) {
	a := &asked{call: c}
	if c.Timeout > 0 {
		a.ctx, a.cancel = context.WithTimeout(st.ctx, time.Duration(c.Timeout)*time.Microsecond)
	} else {
		a.ctx, a.cancel = context.WithCancel(st.ctx)
	}
	st.mu.Lock()
	st.cancels[c.Id] = a.cancel
	st.mu.Unlock()
	select {
	case st.work <- a:
	default:
		go st.worker(a)
	}
}

// end ends the context of a call for which the host waits no more.
func (st *streaming) end(id uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if cancel := st.cancels[id]; cancel != nil {
		cancel()
	}
}

// worker answers calls, as long as there are not too many that wait.
func (st *streaming) worker(a *asked) {
	for {
		st.answer(a.call.Id, st.encode(a))
		a.cancel()
		if st.idle.Add(1) > maxIdle {
			st.idle.Add(-1)
			return
		}
		select {
		case a = <-st.work:
			st.idle.Add(-1)
		case <-st.ctx.Done():
			return
		}
	}
}

// encode asks the plugin and returns what there is to be sent.
func (st *streaming) encode(a *asked) frame.Frame {
	v, err := st.server.ask(a.ctx, a.call)
	if err == nil {
		var f frame.Frame
		if f, err = frame.Encode(&proto.Answer{Id: a.call.Id, Verdict: v}, proto.MaxMessage); err == nil {
			return f
		}
		err = status.Errorf(codes.ResourceExhausted, "the answer cannot be sent: %v", err)
	}
	f, _ := frame.Encode(&proto.Answer{Id: a.call.Id, Error: callError(err)}, proto.MaxMessage)
	return f
}

// answer sends an answer. Whoever is sending takes those of others along.
func (st *streaming) answer(id uint64, f frame.Frame) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.cancels, id)
	st.answers = append(st.answers, f)
	if st.sending {
		return
	}
	st.sending = true
	for len(st.answers) > 0 {
		b := st.batch()
		st.mu.Unlock()
		st.rpc.SendMsg(b) // an error is Recv's as well
		st.mu.Lock()
	}
	st.sending = false
}

// batch takes what is to be sent next. The caller holds mu.
func (st *streaming) batch() *frame.Batch {
	var b frame.Batch
	n := 0
	for _, f := range st.answers {
		if size := b.Size(); size > 0 && size+f.Len() > smallBatch {
			break
		}
		b.Add(f)
		n++
	}
	st.answers = slices.Delete(st.answers, 0, n)
	return &b
}

// ask is what a method of Filter or Gate would be, with what surrounds those.
func (s *server) ask(ctx context.Context, c *proto.Call) (v *proto.Verdict, err error) {
	defer rescue("Stream", &err)
	switch {
	case c.Filter != nil && s.filter != nil:
		return s.Filter(ctx, c.Filter)
	case c.Gate != nil && s.gate != nil:
		return s.Gate(ctx, c.Gate)
	}
	return nil, status.Error(codes.Unimplemented, "it does not serve what the call asks")
}

func callError(err error) *proto.CallError {
	st := status.Convert(err)
	e := &proto.CallError{Code: int32(st.Code()), Message: clip(st.Message(), maxStack)}
	for _, d := range st.Details() {
		if f, ok := d.(*proto.Failure); ok {
			e.Stack = f.Stack
		}
	}
	return e
}
