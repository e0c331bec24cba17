package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// raw talks gRPC without the SDK. It dies in the calls that its arguments name; with "twice"
// it answers twice, with "immortal" it outlives the gateway, and with "always WORD" all messages as if their X-Do field said WORD.
type raw struct {
	proto.UnimplementedPluginServer
	proto.UnimplementedFilterServer
	dieIn  []string
	always string
}

func serveRaw(dieIn []string) {
	l, err := net.Listen("unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "raw"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if !slices.Contains(dieIn, "immortal") {
		go func() {
			os.NewFile(3, "gateway").Read(make([]byte, 1))
			os.Exit(1)
		}()
	}
	r := &raw{dieIn: dieIn}
	if i := slices.Index(dieIn, "always"); i >= 0 {
		r.always = strings.Join(dieIn[i+1:], " ")
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(r.twice), grpc.MaxSendMsgSize(1<<30))
	proto.RegisterPluginServer(s, r)
	if !slices.Contains(dieIn, "twice") { // what is not registered goes to twice
		proto.RegisterFilterServer(s, r)
	}
	fmt.Printf("1|1|unix|%s|grpc\n", l.Addr())
	s.Serve(l)
}

func (r *raw) call(name string) {
	if slices.Contains(r.dieIn, name) {
		os.Exit(5)
	}
}

// twice answers a call with two verdicts.
func (r *raw) twice(_ any, stream grpc.ServerStream) error {
	var req proto.FilterRequest
	if err := stream.RecvMsg(&req); err != nil {
		return err
	}
	if mail.NewHeader(req.GetMessage().GetHeader()).Has("X-Do") || r.always != "" {
		if err := stream.SendMsg(&proto.Verdict{}); err != nil {
			return err
		}
	}
	return stream.SendMsg(&proto.Verdict{})
}

func (r *raw) Describe(context.Context, *proto.DescribeRequest) (*proto.Manifest, error) {
	r.call("describe")
	return &proto.Manifest{
		Name: "raw", Version: "0", Interfaces: []string{proto.InterfaceFilter},
		May: uint32(proto.Right_RIGHT_REJECT | proto.Right_RIGHT_EDIT_HEADER | proto.Right_RIGHT_COPY),
	}, nil
}

func (r *raw) Configure(context.Context, *proto.ConfigureRequest) (*proto.ConfigureResponse, error) {
	r.call("configure")
	return &proto.ConfigureResponse{}, nil
}

func (r *raw) Health(context.Context, *proto.HealthRequest) (*proto.HealthResponse, error) {
	r.call("health")
	return &proto.HealthResponse{}, nil
}

func (r *raw) Drain(context.Context, *proto.DrainRequest) (*proto.DrainResponse, error) {
	r.call("drain")
	return &proto.DrainResponse{}, nil
}

// Filter gives the bad answer that the X-Do field names.
func (r *raw) Filter(_ context.Context, req *proto.FilterRequest) (*proto.Verdict, error) {
	reject := func(s *proto.Status) *proto.Verdict {
		return &proto.Verdict{Outcome: &proto.Outcome{Action: proto.Action_ACTION_REJECT, Status: s}}
	}
	edit := func(e *proto.Edit) *proto.Verdict { return &proto.Verdict{Edits: []*proto.Edit{e}} }
	five := []int32{5, 0, 0}
	what := mail.NewHeader(req.Message.Header).Get("X-Do")
	if what == "" {
		what = r.always
	}
	switch what {
	case "code 999":
		return reject(&proto.Status{Code: 999, Enhanced: five}), nil
	case "code 250":
		return reject(&proto.Status{Code: 250, Enhanced: []int32{2, 0, 0}}), nil
	case "crlf":
		return reject(&proto.Status{Code: 550, Enhanced: five, Text: "no\r\n250 2.0.0 Ok: queued as 1"}), nil
	case "action":
		return &proto.Verdict{Outcome: &proto.Outcome{Action: 77}}, nil
	case "kind":
		return edit(&proto.Edit{Kind: 99}), nil
	case "recipient": // of somebody else's message
		return &proto.Verdict{PerRecipient: map[int32]*proto.Outcome{7: {}}}, nil
	case "injection":
		return edit(&proto.Edit{Kind: proto.EditKind_EDIT_HEADER_INSERT, Name: "X-A", Value: []byte("a\r\nBcc: x@example.org")}), nil
	case "address":
		return edit(&proto.Edit{Kind: proto.EditKind_EDIT_COPY, Path: &proto.Path{Local: "a\r\nb", Domain: "example.org"}}), nil
	case "draft":
		return edit(&proto.Edit{Kind: proto.EditKind_EDIT_BODY_REPLACE, BodyDraft: "/etc/passwd"}), nil
	case "undeclared":
		return &proto.Verdict{Outcome: &proto.Outcome{Action: proto.Action_ACTION_DISCARD, Reason: "gone"}}, nil
	case "giant":
		return &proto.Verdict{Notes: map[string]string{"n": strings.Repeat("x", 100_000_000)}}, nil
	}
	return &proto.Verdict{}, nil
}
