// Package stream is the host's end of Plugin.Stream: the calls of Filter and Gate of one
// process, many at a time over one gRPC stream, which costs a fraction of what a gRPC call
// for each does.
//
// A [Stream] stands in for the clients of Filter and Gate. What it promises is what they do:
// a call ends by the deadline of its context, with the plugin's answer or a gRPC status. At
// most proto.MaxCalls are in the plugin at a time, others wait; no message is larger than
// proto.MaxMessage. Beyond that it watches over the protocol: an answer to a call that was
// never made, or was answered before, reaches nobody and is reported, as is the end of the
// stream. It decides about no verdict and keeps nothing.
//
// All methods are safe for concurrent use.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk/internal/frame"
	"github.com/postern-mail/postern/sdk/proto"
)

// Events are what happens on a stream besides answers. Neither function may block.
type Events struct {
	// Fault is told of an answer that belongs to no call.
	Fault func(error)
	// Broken is told once when the stream has ended, unless Close ended it.
	Broken func(error)
}

// Stream is an open stream.
type Stream struct {
	rpc    proto.Plugin_StreamClient
	cancel context.CancelFunc
	events Events
	slots  chan struct{} // one for each call in the plugin
	wake   chan struct{} // of the sender

	next atomic.Uint64 // the id of the last call

	mu      sync.Mutex
	pending map[uint64]*call // without an answer
	late    map[uint64]int   // sizes of calls sent for whose answers nobody waits any more
	floor   uint64           // what was forgotten of late: answers to ids below count for nothing
	queue   []*call          // to be sent
	cancels []uint64         // calls to be cancelled in the plugin
	sending bool             // somebody sends
	unread  int              // size of the calls that the plugin has not answered, in bytes
	err     error            // why the stream has ended
}

// maxLate is how many calls are remembered that ended before their answer.
const maxLate = 4096

var (
	_ proto.FilterClient = (*Stream)(nil)
	_ proto.GateClient   = (*Stream)(nil)
)

// A call waits for its answer. It is used again.
type call struct {
	id     uint64
	size   int
	frame  frame.Frame
	state  state
	answer chan *proto.Answer // has room for one; nil: the stream has ended
}

type state uint8

const (
	queued state = iota
	sent
	dropped // while it was queued
)

var calls = sync.Pool{New: func() any { return &call{answer: make(chan *proto.Answer, 1)} }}

// DialOptions are what a connection should have that is to carry a stream.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		experimental.WithBufferPool(frame.Pool),
		// The plugin is next door: there is no bandwidth to be found out.
		grpc.WithStaticStreamWindowSize(2 * proto.MaxBatch),
		grpc.WithStaticConnWindowSize(4 * proto.MaxBatch),
	}
}

// Open opens the stream to a plugin. It does not wait for the plugin.
func Open(conn grpc.ClientConnInterface, events Events) (*Stream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	rpc, err := proto.NewPluginClient(conn).Stream(ctx, grpc.MaxCallRecvMsgSize(proto.MaxBatch), grpc.MaxCallSendMsgSize(proto.MaxBatch),
		grpc.ForceCodecV2(frame.NewCodec()))
	if err != nil {
		cancel()
		return nil, err
	}
	s := &Stream{rpc: rpc, cancel: cancel, events: events, slots: make(chan struct{}, proto.MaxCalls), wake: make(chan struct{}, 1),
		pending: make(map[uint64]*call), late: make(map[uint64]int)}
	go s.sender()
	go s.receive()
	return s, nil
}

// Filter asks the plugin about a message. Options are ignored.
func (s *Stream) Filter(ctx context.Context, r *proto.FilterRequest, _ ...grpc.CallOption) (*proto.Verdict, error) {
	return s.ask(ctx, &proto.Call{Filter: r})
}

// Gate asks the plugin about what a client is about to do. Options are ignored.
func (s *Stream) Gate(ctx context.Context, r *proto.GateRequest, _ ...grpc.CallOption) (*proto.Verdict, error) {
	return s.ask(ctx, &proto.Call{Gate: r})
}

// Close ends the stream, and all calls on it.
func (s *Stream) Close() { s.fail(errClosed) }

var errClosed = status.Error(codes.Canceled, "the stream was closed")

func (s *Stream) ask(ctx context.Context, question *proto.Call) (*proto.Verdict, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	defer func() { <-s.slots }()
	if err := ctx.Err(); err != nil { // there was room and no time left at the same moment
		return nil, status.FromContextError(err).Err()
	}
	c, err := s.enqueue(ctx, question)
	if err != nil {
		return nil, err
	}
	s.send(false)
	select {
	case a := <-c.answer:
		return s.result(c, a)
	case <-ctx.Done():
	}
	if !s.drop(c) { // the answer came at the same moment
		return s.result(c, <-c.answer)
	}
	return nil, status.FromContextError(ctx.Err()).Err()
}

// enqueue has the sender send a question.
func (s *Stream) enqueue(ctx context.Context, question *proto.Call) (*call, error) {
	if deadline, ok := ctx.Deadline(); ok {
		question.Timeout = max(1, time.Until(deadline).Microseconds())
	}
	question.Id = s.next.Add(1)
	f, err := frame.Encode(question, proto.MaxMessage)
	if errors.Is(err, frame.ErrTooLarge) {
		return nil, status.Error(codes.ResourceExhausted, "the call is larger than max")
	} else if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	c := calls.Get().(*call)
	c.id, c.size, c.frame, c.state = question.Id, f.Len(), f, queued
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		f.Free()
		return nil, s.err
	}
	s.pending[c.id] = c
	s.queue = append(s.queue, c)
	return c, nil
}

// notify wakes the sender.
func (s *Stream) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// drop ends a call for which nobody waits any more, and reports whether it is one: else it has
// an answer.
func (s *Stream) drop(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.pending[c.id]; !ok {
		return false
	}
	delete(s.pending, c.id)
	if c.state == queued {
		c.state = dropped // the sender passes it by
		return true
	}
	if len(s.late) >= maxLate {
		clear(s.late)
		s.floor = s.next.Load() + 1
	} else {
		s.late[c.id] = c.size
	}
	s.cancels = append(s.cancels, c.id)
	s.notify()
	calls.Put(c)
	return true
}

// result takes an answer apart. The call can be used again.
func (s *Stream) result(c *call, a *proto.Answer) (*proto.Verdict, error) {
	calls.Put(c)
	switch {
	case a == nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		return nil, s.err
	case a.Error != nil:
		return nil, failure(a.Error)
	case a.Verdict == nil:
		return nil, status.Error(codes.Internal, "the answer has neither a verdict nor an error")
	}
	return a.Verdict, nil
}

// failure is the gRPC error that stands for e.
func failure(e *proto.CallError) error {
	code := codes.Code(e.Code)
	if code == codes.OK || code > codes.Unauthenticated || code == codes.Unavailable {
		code = codes.Unknown // it cannot say that it is dead
	}
	st := status.New(code, e.Message)
	if e.Stack != "" {
		if d, err := st.WithDetails(&proto.Failure{Stack: e.Stack}); err == nil {
			st = d
		}
	}
	return st.Err()
}

// room is how many bytes can be sent to a plugin that does not read and no sender is blocked:
// what gRPC takes before it waits for the plugin.
const room = 48 << 10

// send sends what has come together, if nobody does. Who makes a call sends it himself, which
// saves waking somebody, unless he might be blocked: then the sender does, who has no deadline.
func (s *Stream) send(patient bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sending {
		return // and will see what is queued
	}
	s.sending = true
	defer func() { s.sending = false }()
	for {
		if !patient && s.unread >= room {
			s.notify()
			return
		}
		b := s.batch()
		if b == nil {
			return
		}
		s.mu.Unlock()
		err := s.rpc.SendMsg(b)
		s.mu.Lock()
		if err != nil {
			return // receive knows why
		}
	}
}

// sender sends what others must not.
func (s *Stream) sender() {
	for {
		select {
		case <-s.wake:
			s.send(true)
		case <-s.rpc.Context().Done():
			return
		}
	}
}

// smallBatch is how large a message of more than one call may become, in bytes.
const smallBatch = 64 << 10

// batch takes what is to be sent next; nil: nothing. The caller holds mu.
func (s *Stream) batch() *frame.Batch {
	var b frame.Batch
	for _, id := range s.cancels {
		if f, err := frame.Encode(&proto.Call{Id: id, Cancel: true}, proto.MaxMessage); err == nil {
			b.Add(f)
		}
	}
	s.cancels = s.cancels[:0]
	n := 0
	for _, c := range s.queue {
		if c.state == dropped {
			c.frame.Free()
			calls.Put(c)
			n++
			continue
		}
		if size := b.Size(); size > 0 && size+c.frame.Len() > smallBatch {
			break
		}
		c.state = sent
		s.unread += c.size
		b.Add(c.frame)
		n++
	}
	s.queue = slices.Delete(s.queue, 0, n)
	if b.Size() == 0 {
		return nil
	}
	return &b
}

// receive hands answers out until the stream ends.
func (s *Stream) receive() {
	for {
		answers, err := s.rpc.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = status.Error(codes.Internal, "the plugin ended the stream of its calls")
			}
			s.fail(err)
			return
		}
		for _, a := range answers.GetAnswers() {
			s.deliver(a)
		}
	}
}

func (s *Stream) deliver(a *proto.Answer) {
	id := a.GetId()
	s.mu.Lock()
	c, ok := s.pending[id]
	if ok = ok && c.state == sent; ok {
		delete(s.pending, id)
		s.unread -= c.size
		c.answer <- a
	}
	size, late := s.late[id]
	delete(s.late, id)
	s.unread -= size
	late = late || id < s.floor
	s.mu.Unlock()
	if !ok && !late {
		s.events.Fault(fmt.Errorf("it answered call %d, which was never made or was answered before", id))
	}
}

// fail ends the stream and all calls on it.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	for id, c := range s.pending {
		delete(s.pending, id)
		c.answer <- nil
	}
	s.queue = nil
	s.mu.Unlock()
	s.cancel()
	if err != errClosed {
		s.events.Broken(err)
	}
}
