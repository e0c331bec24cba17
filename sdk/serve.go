package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"

	"github.com/postern-mail/postern/sdk/internal/frame"
	"github.com/postern-mail/postern/sdk/proto"
)

// Serve runs a plugin: it is all that main does. The value implements any of [Filter], [Gate],
// [Planner], [Mailbox], [Directory], [Service] and [Observer], and [Configurer] if it has
// settings. Serve returns never; the process ends when the gateway asks for it or dies.
func Serve(impl any, m Manifest) {
	if os.Getenv(proto.CookieKey) != proto.CookieValue {
		fmt.Fprintf(os.Stderr, "%s is a plugin of the Postern mail gateway, which starts it by itself.\n"+
			"Name it in the gateway's configuration:\n\n  [[plugin]]\n  name = %q\n  command = %q\n", m.Name, m.Name, os.Args[0])
		os.Exit(2)
	}
	if err := serve(impl, m); err != nil {
		fmt.Fprintf(os.Stderr, "plugin %s: %v\n", m.Name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// checkVersions refuses a gateway that does not speak our version of the contract: go-plugin
// would go on with ours. Without a list there is nothing to choose from.
func checkVersions(list string) error {
	if list == "" || slices.Contains(strings.Split(list, ","), strconv.Itoa(proto.Version)) {
		return nil
	}
	return fmt.Errorf("the gateway speaks the versions %.64q of the contract, this plugin %d: build it with an SDK of the gateway's release", list, proto.Version)
}

const heapFloor = 4 << 20

func serve(impl any, m Manifest) error {
	if err := checkVersions(os.Getenv("PLUGIN_PROTOCOL_VERSIONS")); err != nil {
		return err
	}
	// A terminal and a service manager signal the whole family; when a plugin ends is the
	// gateway's decision, because messages may be in it.
	// They are caught, not ignored: what is ignored, the plugin's children would inherit.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for range signals {
		}
	}()
	if err := watchParent(); err != nil {
		return err
	}
	// go-plugin replaces os.Stdout and os.Stderr by streams over gRPC. Ours stays what it
	// is: the host reads it with limits of its own.
	stderr := os.Stderr
	slog.SetDefault(slog.New(slog.NewJSONHandler(stderr, nil)))
	var once sync.Once
	s, err := newServer(impl, m, func() {
		once.Do(func() { os.Stdout, os.Stderr = stderr, stderr })
	})
	if err != nil {
		return err
	}
	if s.host, err = hostOfEnvironment(); err != nil {
		return err
	}
	if s.handed, err = handedOver(); err != nil {
		return err
	}
	// The heap of a small plugin would be collected every few hundred messages. These bytes
	// are never touched, so they take no memory, but the collector counts them: it lets as
	// many more come together before it looks.
	floor := make([]byte, heapFloor)
	defer runtime.KeepAlive(floor)
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  proto.Version,
			MagicCookieKey:   proto.CookieKey,
			MagicCookieValue: proto.CookieValue,
		},
		VersionedPlugins: map[int]plugin.PluginSet{proto.Version: {"postern": &glue{server: s}}},
		Logger:           hclog.NewNullLogger(),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts,
				grpc.MaxRecvMsgSize(proto.MaxBatch),
				grpc.MaxSendMsgSize(proto.MaxBatch),
				grpc.ForceServerCodecV2(frame.NewCodec()),
				experimental.BufferPool(frame.Pool),
				// The host is next door: there is no bandwidth to be found out.
				grpc.StaticStreamWindowSize(2*proto.MaxBatch),
				grpc.StaticConnWindowSize(4*proto.MaxBatch),
				grpc.MaxConcurrentStreams(proto.MaxCalls), // what is beyond waits in the host, within its deadline
				grpc.NumStreamWorkers(8),
				grpc.ChainUnaryInterceptor(recoverPanic, s.giveHost),
			)...)
		},
	})
	return nil
}

// glue is what go-plugin wants a plugin to be.
type glue struct {
	plugin.NetRPCUnsupportedPlugin
	server *server
}

// GRPCServer registers the services.
func (g *glue) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	g.server.register(s)
	return nil
}

// GRPCClient is the host's business.
func (g *glue) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this is the plugin's side")
}
