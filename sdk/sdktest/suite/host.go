package suite

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// A host is the gateway that a plugin finds when it asks for something: a new one, which
// knows nobody, has nothing stored, and takes whatever it is given. It notes the calls that
// the plugin must not make.
type host struct {
	proto.UnimplementedHostServer
	address, token string
	server         *grpc.Server

	mu     sync.Mutex
	rights sdk.HostRight
	faults []string
}

func startHost(dir string) (*host, error) {
	h := &host{address: filepath.Join(dir, "host"), token: rand.Text()}
	l, err := net.Listen("unix", h.address)
	if err != nil {
		return nil, err
	}
	h.server = grpc.NewServer(
		grpc.MaxRecvMsgSize(proto.MaxMessage),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := h.permit(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return handler(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := h.permit(stream.Context(), info.FullMethod); err != nil {
				return err
			}
			return handler(srv, stream)
		}),
	)
	proto.RegisterHostServer(h.server, h)
	go h.server.Serve(l)
	return h, nil
}

// allow says what the manifest declares.
func (h *host) allow(rights sdk.HostRight) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rights = rights
}

func (h *host) permit(ctx context.Context, method string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get(proto.HostTokenKey), []string{h.token}) {
		h.faults = append(h.faults, fmt.Sprintf("it called %s without the token", method))
		return status.Error(codes.Unauthenticated, "the token is missing or wrong")
	}
	right, known := wire.HostRight(method)
	if known && h.rights&right == 0 {
		h.faults = append(h.faults, fmt.Sprintf("it called %s, to which its manifest does not declare the right", method))
		return status.Error(codes.PermissionDenied, "the manifest does not declare the right to this call")
	}
	return nil
}

// complaint is the first call that it must not make.
func (h *host) complaint() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.faults) > 0 {
		return fmt.Errorf("%s (calls like it: %d)", h.faults[0], len(h.faults))
	}
	return nil
}

func (h *host) Submit(stream grpc.ClientStreamingServer[proto.SubmitRequest, proto.SubmitResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			break
		}
	}
	return stream.SendAndClose(&proto.SubmitResponse{Id: "0c1f3k9w2m4xr"})
}

func (h *host) Mechanisms(context.Context, *proto.MechanismsRequest) (*proto.MechanismsResponse, error) {
	return &proto.MechanismsResponse{Names: []string{"PLAIN"}}, nil
}

func (h *host) Authenticate(stream grpc.BidiStreamingServer[proto.AuthenticateRequest, proto.AuthenticateResponse]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return stream.Send(&proto.AuthenticateResponse{Status: &proto.Status{Code: 535, Enhanced: []int32{5, 7, 8}, Text: "Wrong user name or password"}})
}

func (h *host) Lookup(context.Context, *proto.LookupRequest) (*proto.LookupResponse, error) {
	return &proto.LookupResponse{}, nil
}

func (h *host) GetData(context.Context, *proto.GetDataRequest) (*proto.GetDataResponse, error) {
	return &proto.GetDataResponse{}, nil
}

func (h *host) PutData(context.Context, *proto.PutDataRequest) (*proto.PutDataResponse, error) {
	return &proto.PutDataResponse{Version: time.Now().UnixNano()}, nil
}

func (h *host) ListData(context.Context, *proto.ListDataRequest) (*proto.ListDataResponse, error) {
	return &proto.ListDataResponse{}, nil
}

func (h *host) GetState(context.Context, *proto.GetStateRequest) (*proto.GetStateResponse, error) {
	return &proto.GetStateResponse{}, nil
}

func (h *host) PutState(context.Context, *proto.PutStateRequest) (*proto.PutStateResponse, error) {
	return &proto.PutStateResponse{Done: true}, nil
}

func (h *host) CountState(_ context.Context, r *proto.CountStateRequest) (*proto.CountStateResponse, error) {
	return &proto.CountStateResponse{Sum: r.GetDelta()}, nil
}

func (h *host) Log(context.Context, *proto.LogRequest) (*proto.LogResponse, error) {
	return &proto.LogResponse{}, nil
}

func (h *host) Count(context.Context, *proto.CountRequest) (*proto.CountResponse, error) {
	return &proto.CountResponse{}, nil
}

func (h *host) Folders(context.Context, *proto.FoldersRequest) (*proto.MailboxFoldersResponse, error) {
	return &proto.MailboxFoldersResponse{}, nil
}

func (h *host) Remembered(context.Context, *proto.RememberedRequest) (*proto.RememberedResponse, error) {
	return &proto.RememberedResponse{}, nil
}
