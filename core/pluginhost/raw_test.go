package pluginhost

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// raw is a plugin in "another language": it answers what the SDK never would.
type raw struct {
	proto.UnimplementedPluginServer
	proto.UnimplementedFilterServer
}

func (raw) Describe(context.Context, *proto.DescribeRequest) (*proto.Manifest, error) {
	return &proto.Manifest{Name: "raw", Version: "0", Interfaces: []string{"filter"}, May: uint32(sdk.MayReject | sdk.MayEditHeader | sdk.MayCopy)}, nil
}

func (raw) Configure(context.Context, *proto.ConfigureRequest) (*proto.ConfigureResponse, error) {
	return &proto.ConfigureResponse{}, nil
}

func (raw) Health(context.Context, *proto.HealthRequest) (*proto.HealthResponse, error) {
	return &proto.HealthResponse{}, nil
}

func (raw) Filter(_ context.Context, r *proto.FilterRequest) (*proto.Verdict, error) {
	reject := func(s *proto.Status) *proto.Verdict {
		return &proto.Verdict{Outcome: &proto.Outcome{Action: proto.Action_ACTION_REJECT, Status: s}}
	}
	edit := func(e *proto.Edit) *proto.Verdict { return &proto.Verdict{Edits: []*proto.Edit{e}} }
	switch mail.NewHeader(r.Message.Header).Get("Subject") {
	case "code 999":
		return reject(&proto.Status{Code: 999, Enhanced: []int32{5, 0, 0}}), nil
	case "code 250":
		return reject(&proto.Status{Code: 250, Enhanced: []int32{2, 0, 0}}), nil
	case "no status":
		return reject(nil), nil
	case "crlf":
		return reject(&proto.Status{Code: 550, Enhanced: []int32{5, 0, 0}, Text: "a\r\n250 b"}), nil
	case "action":
		return &proto.Verdict{Outcome: &proto.Outcome{Action: 77}}, nil
	case "action 257": // would be 1 in eight bits
		return &proto.Verdict{Outcome: &proto.Outcome{Action: 257}}, nil
	case "kind":
		return edit(&proto.Edit{Kind: 99}), nil
	case "recipient":
		return &proto.Verdict{PerRecipient: map[int32]*proto.Outcome{7: {}}}, nil
	case "recipient -1":
		return &proto.Verdict{PerRecipient: map[int32]*proto.Outcome{-1: {}}}, nil
	case "injection":
		return edit(&proto.Edit{Kind: proto.EditKind_EDIT_HEADER_INSERT, Name: "X-A", Value: []byte("a\r\nBcc: x@example.org")}), nil
	case "address":
		return edit(&proto.Edit{Kind: proto.EditKind_EDIT_COPY, Path: &proto.Path{Local: "a\r\nb", Domain: "example.org"}}), nil
	case "draft":
		return edit(&proto.Edit{Kind: proto.EditKind_EDIT_BODY_REPLACE, BodyDraft: "/etc/passwd"}), nil
	case "huge":
		return &proto.Verdict{Notes: map[string]string{"n": strings.Repeat("x", 8<<20)}}, nil
	}
	return &proto.Verdict{}, nil
}

func serveRaw() {
	l, err := net.Listen("unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "raw"))
	if err != nil {
		os.Exit(1)
	}
	s := grpc.NewServer()
	proto.RegisterPluginServer(s, raw{})
	proto.RegisterFilterServer(s, raw{})
	fmt.Printf("1|1|unix|%s|grpc\n", l.Addr())
	s.Serve(l)
}
