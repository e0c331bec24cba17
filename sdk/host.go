package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// HostRight is a set of the gateway's services that a plugin may call through its [Host].
// A call outside the declared rights is refused and is a fault of the plugin.
type HostRight uint32

// The rights. The numbers are part of the protocol; do not reorder.
const (
	MaySubmit         HostRight = 1 << iota // [Host.Submit]
	MayAuthenticate                         // [Host.Mechanisms], [Host.Login], [Host.CheckPassword]
	MayLookup                               // [Host.Lookup]
	MayKeepData                             // [Host.Data], [Host.PutData], [Host.DeleteData], [Host.ListData]
	MayUseCertificate                       // [Host.Certificate]
	MayKeepState                            // [Host.State] and its siblings
	MayLog                                  // [Host.Log]
	MayCount                                // [Host.Count]
	MayAskRemembered                        // [Host.Remembered]
	MayTakeReinjected                       // [Host.Reinjected]
	MayAskFolders                           // [Host.Folders]
)

// Errors of the Host's methods. Every other error means "try again later".
var (
	// ErrNoHost: there is no gateway, as in a test that gave the plugin no Host.
	ErrNoHost = errors.New("there is no gateway to ask")
	// ErrNotPermitted: the manifest does not declare the right to the call.
	ErrNotPermitted = errors.New("the manifest does not declare the right to this call")
	// ErrInvalid: the call breaks the contract; it will never succeed.
	ErrInvalid = errors.New("invalid call")
	// ErrConflict: what should be changed is not (any more) as the caller thought.
	ErrConflict = errors.New("it has been changed meanwhile")
)

// Host is the gateway, as far as a plugin may ask it for something: what it asks for has to
// be declared in [Manifest].Host. The gateway hands it over in [Config]; it is good for as
// long as the plugin runs. Every call has a deadline, the caller's or one of half a minute.
// It is safe for concurrent use. All methods of a nil Host return [ErrNoHost].
type Host struct {
	conn *grpc.ClientConn
	api  proto.HostClient
}

// Time limits of calls whose context has none.
const (
	hostTime   = 30 * time.Second
	submitTime = 10 * time.Minute
	loginTime  = 2 * time.Minute
)

// ConnectHost returns the Host that is served at the path of a unix socket. Plugins get
// theirs in [Config]; this is for tests.
func ConnectHost(address, token string) (*Host, error) {
	auth := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, proto.HostTokenKey, token)
	}
	conn, err := grpc.NewClient("unix:"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a socket in a directory of the plugin's own
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(proto.MaxMessage), grpc.MaxCallSendMsgSize(proto.MaxMessage)),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(auth(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(auth(ctx), desc, cc, method, opts...)
		}))
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return &Host{conn: conn, api: proto.NewHostClient(conn)}, nil
}

// Close ends the connection. Plugins need not call it.
func (h *Host) Close() error {
	if h == nil {
		return nil
	}
	return h.conn.Close()
}

// hostOfEnvironment is the Host that the gateway named; nil if it named none. The token does not
// stay in the environment, where children of the plugin would inherit it.
func hostOfEnvironment() (*Host, error) {
	address, token := os.Getenv(proto.EnvHostAddress), os.Getenv(proto.EnvHostToken)
	os.Unsetenv(proto.EnvHostToken)
	if address == "" {
		return nil, nil
	}
	return ConnectHost(address, token)
}

type hostKey struct{}

// HostFrom returns the Host in the context of a call that the gateway made; nil if there is
// none.
func HostFrom(ctx context.Context) *Host {
	h, _ := ctx.Value(hostKey{}).(*Host)
	return h
}

// WithHost returns a context with a Host in it, for tests of what uses [HostFrom].
func WithHost(ctx context.Context, h *Host) context.Context {
	return context.WithValue(ctx, hostKey{}, h)
}

// ask runs one call with a deadline.
func ask[T any](h *Host, ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	if h == nil {
		var none T
		return none, ErrNoHost
	}
	ctx, cancel := bounded(ctx, hostTime)
	defer cancel()
	v, err := call(ctx)
	return v, hostError(err)
}

func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

func hostError(err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	switch st.Code() {
	case codes.PermissionDenied:
		return ErrNotPermitted
	case codes.InvalidArgument:
		return fmt.Errorf("%w: %s", ErrInvalid, st.Message())
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	}
	return fmt.Errorf("gateway: %s", st.Message())
}

// Account is what the gateway knows of an address.
type Account struct {
	// Local says that its domain is one of the gateway's.
	Local bool
	// Targets are what it stands for: accounts, and addresses elsewhere. None: there is no
	// such address here.
	Targets []mail.Path
	// Info is about the mailbox of the address itself, also with a +tag or at another name
	// of its domain; nil: it has none.
	Info *AccountInfo
}

// AccountInfo is what has been settled about a mailbox.
type AccountInfo struct {
	Address     mail.Path // its one true address
	DisplayName string
	// Enabled: it gets mail and may log in. Without it there are no targets either.
	Enabled bool
	// QuotaBytes is what the mailbox may hold in all, of the account or as its domain has
	// it; 0: no limit.
	QuotaBytes int64
	// QuotaMessages is the same in messages.
	QuotaMessages int64
	// Settings are what has been set for the account, by key ("postern account set").
	Settings map[string]string
}

// Lookup says what an address is.
func (h *Host) Lookup(ctx context.Context, address mail.Path) (Account, error) {
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.LookupResponse, error) {
		return h.api.Lookup(ctx, &proto.LookupRequest{Address: encodePath(address)})
	})
	if err != nil {
		return Account{}, err
	}
	a := Account{Local: r.Local, Targets: decodePaths(r.Targets)}
	if i := r.Account; i != nil {
		a.Info = &AccountInfo{Address: decodePath(i.Address), DisplayName: i.DisplayName, Enabled: i.Enabled,
			QuotaBytes: max(i.QuotaBytes, 0), QuotaMessages: max(i.QuotaMessages, 0), Settings: i.Settings}
	}
	return a, nil
}

// Remembered says whether a plan for this recipient has remembered the key for a time that
// is not over yet. The plan that is being made does not count.
func (h *Host) Remembered(ctx context.Context, recipient mail.Path, key string) (bool, error) {
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.RememberedResponse, error) {
		return h.api.Remembered(ctx, &proto.RememberedRequest{Recipient: encodePath(recipient), Key: validUTF8(key)})
	})
	return r.GetRemembered(), err
}

// Log writes a line into the gateway's log: a short fixed message and its facts, as with
// [slog.Logger.Log]. More than the plugin's share of lines is left out. Without a gateway
// the line goes to [slog.Default].
func (h *Host) Log(ctx context.Context, level slog.Level, message string, args ...any) {
	if h == nil {
		slog.Log(ctx, level, message, args...)
		return
	}
	r := slog.NewRecord(time.Time{}, level, message, 0)
	r.Add(args...)
	fields := make(map[string]string, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		fields[line(a.Key)] = line(a.Value.Resolve().String())
		return true
	})
	_, err := ask(h, ctx, func(ctx context.Context) (*proto.LogResponse, error) {
		return h.api.Log(ctx, &proto.LogRequest{Level: int32(level), Message: line(message), Fields: fields})
	})
	if err != nil {
		slog.Log(ctx, level, message, args...)
	}
}

// Count adds to a counter of the plugin's own, which the admin can see. A name has lower
// case letters, digits and underscores; a plugin has at most 64.
func (h *Host) Count(ctx context.Context, name string, n int64) error {
	_, err := ask(h, ctx, func(ctx context.Context) (*proto.CountResponse, error) {
		return h.api.Count(ctx, &proto.CountRequest{Name: name, Delta: n})
	})
	return err
}
