package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk/internal/draft"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// server answers the host's calls with an author's value.
type server struct {
	proto.UnimplementedPluginServer
	proto.UnimplementedFilterServer
	proto.UnimplementedGateServer
	proto.UnimplementedMailboxServer
	proto.UnimplementedPlannerServer
	proto.UnimplementedObserverServer
	proto.UnimplementedDirectoryServer
	proto.UnimplementedServiceServer

	impl      any
	manifest  Manifest
	filter    Filter
	gate      Gate
	mailbox   Mailbox
	room      Room
	folders   Folders
	planner   Planner
	observer  Observer
	directory Directory
	service   Service
	handed    map[string]int // descriptors of listeners, by address
	running   running
	begun     func() // called when the host makes its first call
	host      *Host  // what the plugin may ask; nil: nothing
}

// newServer refuses values that are no plugin.
func newServer(impl any, m Manifest, begun func()) (*server, error) {
	s := &server{impl: impl, manifest: m, begun: begun}
	s.filter, _ = impl.(Filter)
	s.gate, _ = impl.(Gate)
	if s.mailbox, _ = impl.(Mailbox); s.mailbox != nil {
		s.room, _ = impl.(Room)
		s.folders, _ = impl.(Folders)
	}
	s.planner, _ = impl.(Planner)
	s.observer, _ = impl.(Observer)
	s.directory, _ = impl.(Directory)
	s.service, _ = impl.(Service)
	if len(s.interfaces()) == 0 {
		return nil, fmt.Errorf("%T implements none of sdk.Filter, sdk.Gate, sdk.Mailbox, sdk.Planner, sdk.Observer, sdk.Directory and sdk.Service; check the signatures of its methods", impl)
	}
	if (s.gate != nil) != (m.Stages != 0) {
		return nil, fmt.Errorf("%T has to implement sdk.Gate and the manifest to name the Stages at which it is asked: one without the other does nothing", impl)
	}
	return s, nil
}

func (s *server) interfaces() []string {
	var names []string
	if s.filter != nil {
		names = append(names, proto.InterfaceFilter)
	}
	if s.gate != nil {
		names = append(names, proto.InterfaceGate)
	}
	if s.mailbox != nil {
		names = append(names, proto.InterfaceMailbox)
	}
	if s.planner != nil {
		names = append(names, proto.InterfacePlanner)
	}
	if s.observer != nil {
		names = append(names, proto.InterfaceObserver)
	}
	if s.directory != nil {
		names = append(names, proto.InterfaceDirectory)
	}
	if s.service != nil {
		names = append(names, proto.InterfaceService)
	}
	return names
}

// register adds the services that the plugin has.
func (s *server) register(r grpc.ServiceRegistrar) {
	proto.RegisterPluginServer(r, s)
	if s.filter != nil {
		proto.RegisterFilterServer(r, s)
	}
	if s.gate != nil {
		proto.RegisterGateServer(r, s)
	}
	if s.mailbox != nil {
		proto.RegisterMailboxServer(r, s)
	}
	if s.planner != nil {
		proto.RegisterPlannerServer(r, s)
	}
	if s.observer != nil {
		proto.RegisterObserverServer(r, s)
	}
	if s.directory != nil {
		proto.RegisterDirectoryServer(r, s)
	}
	if s.service != nil {
		proto.RegisterServiceServer(r, s)
	}
}

func (s *server) Describe(context.Context, *proto.DescribeRequest) (*proto.Manifest, error) {
	s.begun()
	m := encodeManifest(s.manifest, s.interfaces())
	m.Room, m.Folders = s.room != nil, s.folders != nil
	return m, nil
}

func (s *server) Configure(ctx context.Context, req *proto.ConfigureRequest) (*proto.ConfigureResponse, error) {
	config := decodeConfig(req)
	config.Host = s.host
	var err error
	if c, ok := s.impl.(Configurer); ok {
		err = c.Configure(ctx, config)
	} else {
		err = config.Decode(&struct{}{}) // it has no settings: a key is a mistake
	}
	if err != nil {
		// Several faults, as [errors.Join] puts them together, are read in one line.
		return &proto.ConfigureResponse{Error: line(strings.ReplaceAll(err.Error(), "\n", "; "))}, nil
	}
	r := &proto.ConfigureResponse{}
	if o, ok := s.impl.(Owner); ok {
		r.Owns = lines(o.Owns())
	}
	return r, nil
}

func (s *server) Health(context.Context, *proto.HealthRequest) (*proto.HealthResponse, error) {
	return &proto.HealthResponse{}, nil
}

func (s *server) Drain(ctx context.Context, _ *proto.DrainRequest) (*proto.DrainResponse, error) {
	s.end(ctx)
	return &proto.DrainResponse{}, nil
}

func (s *server) Filter(ctx context.Context, r *proto.FilterRequest) (*proto.Verdict, error) {
	d := draft.Draft{Path: r.Draft}
	if d.Path != "" {
		ctx = draft.With(ctx, &d)
		defer d.Close() // after a panic, too
	}
	v, err := s.filter.Filter(ctx, decodeMessage(r.Message))
	if err != nil {
		return nil, failure(err)
	}
	if v == nil {
		return nil, status.Error(codes.Internal, "the filter returned neither a verdict nor an error")
	}
	if err := d.Close(); err != nil {
		return nil, failure(fmt.Errorf("writing the new body: %w", err))
	}
	return encodeVerdict(v), nil
}

func (s *server) Gate(ctx context.Context, r *proto.GateRequest) (*proto.Verdict, error) {
	v, err := s.gate.Gate(ctx, decodeAttempt(r))
	if err != nil {
		return nil, failure(err)
	}
	if v == nil {
		return nil, status.Error(codes.Internal, "the gate returned neither a verdict nor an error")
	}
	return encodeVerdict(v), nil
}

func (s *server) Deliver(ctx context.Context, r *proto.DeliverRequest) (*proto.DeliverResponse, error) {
	st, err := answer(s.mailbox.Deliver(ctx, decodeDelivery(r)))
	if err != nil {
		return nil, err
	}
	return &proto.DeliverResponse{Status: st}, nil
}

func (s *server) Room(ctx context.Context, r *proto.RoomRequest) (*proto.RoomResponse, error) {
	if s.room == nil {
		return nil, status.Error(codes.Unimplemented, "the manifest does not say that it knows")
	}
	st, err := answer(s.room.Room(ctx, decodePath(r.Recipient), r.Size))
	if err != nil {
		return nil, err
	}
	return &proto.RoomResponse{Status: st}, nil
}

func (s *server) Folders(ctx context.Context, r *proto.FoldersRequest) (*proto.FoldersResponse, error) {
	if s.folders == nil {
		return nil, status.Error(codes.Unimplemented, "the manifest does not say that it knows")
	}
	l, err := s.folders.Folders(ctx, decodePath(r.Recipient))
	if err != nil {
		return nil, failure(err)
	}
	return &proto.FoldersResponse{List: encodeFolders(l)}, nil
}

// answer is what a mailbox says: a status, none for success, or that it has no answer.
func answer(err error) (*proto.Status, error) {
	var st mail.Status
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &st) && !st.IsZero() && !st.Success():
		return encodeStatus(st), nil
	}
	return nil, failure(err)
}

// failure is what an author's error becomes: text for the gateway's log.
func failure(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, line(err.Error()))
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, line(err.Error()))
	}
	return status.Error(codes.Unknown, line(err.Error()))
}

// giveHost puts the Host into the context of every call, for [HostFrom].
func (s *server) giveHost(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return handler(WithHost(ctx, s.host), req)
}

const maxStack = 6 << 10 // gRPC sends error details as a header

// recoverPanic makes a panic in a call the failure of that call.
func recoverPanic(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer rescue(info.FullMethod, &err)
	return handler(ctx, req)
}

// rescue is deferred: it makes an error of a panic. The stack goes to the log and to the
// host, which keeps it with the message.
func rescue(method string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	stack := fmt.Sprintf("panic: %v\n\n%s", p, debug.Stack())
	slog.Error("panic in a call", "method", method, "stack", stack)
	st := status.New(codes.Internal, line(fmt.Sprintf("panic: %v", p)))
	if d, derr := st.WithDetails(&proto.Failure{Stack: clip(stack, maxStack)}); derr == nil {
		st = d
	}
	*err = st.Err()
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return validUTF8(s)
}
