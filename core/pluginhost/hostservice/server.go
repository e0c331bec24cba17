package hostservice

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/core/pluginhost/pluginlog"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Time limits of calls to the host.
const (
	serviceTime = 2 * time.Minute
	submitTime  = 10 * time.Minute
)

// Options are what a server is built from.
type Options struct {
	Plugin   string // its name in the configuration
	Services Services
	Counters *Counters // of all plugins
	Log      *pluginlog.Log
	// Fault is told of each call that the plugin must not make.
	Fault func(error)
}

// A Server serves one process of a plugin what it may ask of the gateway, on a socket
// in the directory that only the plugin's user can enter, to who knows the token.
type Server struct {
	proto.UnimplementedHostServer
	plugin   string
	services Services
	counters *Counters
	log      *pluginlog.Log
	fault    func(error)
	token    string
	address  string
	server   *grpc.Server
	rights   atomic.Uint32 // none before the manifest is known
	submits  chan struct{}
}

var _ proto.HostServer = (*Server)(nil)

// New returns a server that does not listen yet, and gives no rights.
func New(opt Options) *Server {
	return &Server{
		plugin:   opt.Plugin,
		services: opt.Services,
		counters: opt.Counters,
		log:      opt.Log,
		fault:    opt.Fault,
		token:    rand.Text(),
		submits:  make(chan struct{}, maxSubmits),
	}
}

// Listen opens the socket in dir and serves until Close. It returns what the plugin needs in
// its environment to find the server.
func (s *Server) Listen(dir string) ([]string, error) {
	s.address = filepath.Join(dir, "host")
	l, err := net.Listen("unix", s.address)
	if err != nil {
		return nil, fmt.Errorf("socket for the host's services: %w", err)
	}
	// The directory says who gets this far, also where the plugin has a user of its own.
	if err := os.Chmod(s.address, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket for the host's services: %w", err)
	}
	s.server = grpc.NewServer(
		grpc.MaxRecvMsgSize(proto.MaxMessage),
		grpc.MaxSendMsgSize(proto.MaxMessage),
		grpc.MaxConcurrentStreams(128),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	)
	proto.RegisterHostServer(s.server, s)
	go s.server.Serve(l)
	return []string{proto.EnvHostAddress + "=" + s.address, proto.EnvHostToken + "=" + s.token}, nil
}

// Grant gives the process the rights that its manifest declares.
func (s *Server) Grant(r sdk.HostRight) { s.rights.Store(uint32(r)) }

// Close ends all calls.
func (s *Server) Close() {
	if s.server != nil {
		s.server.Stop()
	}
}

// permit checks token and right.
func (s *Server) permit(ctx context.Context, method string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	token := md.Get(proto.HostTokenKey)
	if len(token) != 1 || subtle.ConstantTimeCompare([]byte(token[0]), []byte(s.token)) != 1 {
		s.fault(fmt.Errorf("call of %s without the token", method))
		return status.Error(codes.Unauthenticated, "the token is missing or wrong")
	}
	right, known := wire.HostRight(method)
	if !known {
		return status.Error(codes.Unimplemented, "this gateway has no such service")
	}
	if sdk.HostRight(s.rights.Load())&right == 0 {
		s.fault(fmt.Errorf("call of %s, to which its manifest does not declare the right", method))
		return status.Error(codes.PermissionDenied, "the manifest does not declare the right to this call")
	}
	return nil
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := s.permit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, serviceTime)
	defer cancel()
	return handler(ctx, req)
}

// stream runs the handler of a stream. When its time is over the stream ends, and with it
// the handler's reads.
func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := s.permit(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	limit := serviceTime
	if info.FullMethod == proto.Host_Submit_FullMethodName || info.FullMethod == proto.Host_Reinjected_FullMethodName {
		limit = submitTime
	}
	ctx, cancel := context.WithTimeout(stream.Context(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- handler(srv, &boundedStream{stream, ctx}) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

type boundedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context is that of the call, with its time limit.
func (b *boundedStream) Context() context.Context { return b.ctx }

// unavailable is the answer to a call that cannot be served now. The plugin learns no more
// than that; the log does.
func (s *Server) unavailable(what string, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the call was cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the call took too long")
	}
	s.log.Error("service for a plugin failed", "service", what, "error", err)
	return status.Error(codes.Unavailable, "the gateway cannot answer now, try again later")
}

var errNoService = errors.New("there is no such service in this process")

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}
