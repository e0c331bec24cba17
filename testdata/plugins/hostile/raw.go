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
// it answers twice, with "gate" it is a gate too, with "stream" it is asked over a stream, which it ends early
// with "end" as well, and answers twice there with "double", with "immortal" it outlives the gateway, and with "always WORD" all messages as if their X-Do field said WORD.
type raw struct {
	proto.UnimplementedPluginServer
	proto.UnimplementedFilterServer
	proto.UnimplementedGateServer
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
	options := []grpc.ServerOption{grpc.MaxSendMsgSize(1 << 30)}
	if slices.Contains(dieIn, "twice") {
		options = append(options, grpc.UnknownServiceHandler(r.twice))
	}
	s := grpc.NewServer(options...)
	proto.RegisterPluginServer(s, r)
	if len(options) == 1 { // else unknown, and answered twice
		proto.RegisterFilterServer(s, r)
	}
	proto.RegisterGateServer(s, r)
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
	m := &proto.Manifest{
		Name: "raw", Version: "0", Interfaces: []string{proto.InterfaceFilter},
		May: uint32(proto.Right_RIGHT_REJECT | proto.Right_RIGHT_EDIT_HEADER | proto.Right_RIGHT_COPY),
	}
	if slices.Contains(r.dieIn, "gate") {
		m.Interfaces = append(m.Interfaces, proto.InterfaceGate)
		m.Stages = uint32(proto.Stage_STAGE_MAIL | proto.Stage_STAGE_RCPT)
	}
	m.Stream = slices.Contains(r.dieIn, "stream")
	return m, nil
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
	if what := mail.NewHeader(req.Message.Header).Get("X-Do"); what != "" {
		return answer(what), nil
	}
	return answer(r.always), nil
}

// Gate gives it at each command.
func (r *raw) Gate(context.Context, *proto.GateRequest) (*proto.Verdict, error) {
	return answer(r.always), nil
}

// Stream does the same for calls on a stream.
func (r *raw) Stream(stream proto.Plugin_StreamServer) error {
	for {
		calls, err := stream.Recv()
		if err != nil || slices.Contains(r.dieIn, "end") {
			return err
		}
		for _, c := range calls.Calls {
			if c.Cancel {
				continue
			}
			a := []*proto.Answer{{Id: c.Id, Verdict: answer(r.always)}}
			if slices.Contains(r.dieIn, "double") {
				a = append(a, a[0])
			}
			if err := stream.Send(&proto.Answers{Answers: a}); err != nil {
				return err
			}
		}
	}
}

// answer is a bad one, or, to any other word, a good one.
func answer(what string) *proto.Verdict {
	reject := func(s *proto.Status) *proto.Verdict {
		return &proto.Verdict{Outcome: &proto.Outcome{Action: proto.Action_ACTION_REJECT, Status: s}}
	}
	edit := func(e *proto.Edit) *proto.Verdict { return &proto.Verdict{Edits: []*proto.Edit{e}} }
	five := []int32{5, 0, 0}
	switch what {
	case "code 999":
		return reject(&proto.Status{Code: 999, Enhanced: five})
	case "code 250":
		return reject(&proto.Status{Code: 250, Enhanced: []int32{2, 0, 0}})
	case "crlf":
		return reject(&proto.Status{Code: 550, Enhanced: five, Text: "no\r\n250 2.0.0 Ok: queued as 1"})
	case "action":
		return &proto.Verdict{Outcome: &proto.Outcome{Action: 77}}
	case "kind":
		return edit(&proto.Edit{Kind: 99})
	case "recipient": // of somebody else's message
		return &proto.Verdict{PerRecipient: map[int32]*proto.Outcome{7: {}}}
	case "injection":
		return edit(&proto.Edit{Kind: proto.EditKind_EDIT_HEADER_INSERT, Name: "X-A", Value: []byte("a\r\nBcc: x@example.org")})
	case "address":
		return edit(&proto.Edit{Kind: proto.EditKind_EDIT_COPY, Path: &proto.Path{Local: "a\r\nb", Domain: "example.org"}})
	case "draft":
		return edit(&proto.Edit{Kind: proto.EditKind_EDIT_BODY_REPLACE, BodyDraft: "/etc/passwd"})
	case "undeclared":
		return &proto.Verdict{Outcome: &proto.Outcome{Action: proto.Action_ACTION_DISCARD, Reason: "gone"}}
	case "giant":
		return &proto.Verdict{Notes: map[string]string{"n": strings.Repeat("x", 100_000_000)}}
	}
	return &proto.Verdict{}
}
