package pluginhost

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// rawGate is a gate in "another language": what it answers is its HELO name.
type rawGate struct {
	raw
	proto.UnimplementedGateServer
}

func (rawGate) Describe(context.Context, *proto.DescribeRequest) (*proto.Manifest, error) {
	return &proto.Manifest{Name: "rawgate", Interfaces: []string{"gate"}, Stages: uint32(sdk.AtHelo), May: uint32(sdk.MayReject | sdk.MayDiscard | sdk.MayEditHeader)}, nil
}

func (rawGate) Gate(_ context.Context, r *proto.GateRequest) (*proto.Verdict, error) {
	outcome := func(a proto.Action, code int32, text string) *proto.Verdict {
		return &proto.Verdict{Outcome: &proto.Outcome{Action: a, Status: &proto.Status{Code: code, Text: text}}}
	}
	switch r.Envelope.Client.Helo {
	case "fine":
		return outcome(proto.Action_ACTION_REJECT, 550, "no"), nil
	case "code 999":
		return outcome(proto.Action_ACTION_REJECT, 999, ""), nil
	case "code 250":
		return outcome(proto.Action_ACTION_REJECT, 250, ""), nil
	case "class":
		return outcome(proto.Action_ACTION_TEMPFAIL, 550, ""), nil
	case "crlf":
		return outcome(proto.Action_ACTION_REJECT, 550, "a\r\n250 b"), nil
	case "discard":
		return outcome(proto.Action_ACTION_DISCARD, 0, ""), nil
	case "action":
		return outcome(77, 550, ""), nil
	case "edit":
		return &proto.Verdict{Edits: []*proto.Edit{{Kind: proto.EditKind_EDIT_HEADER_INSERT, Name: "X", Value: []byte("y")}}}, nil
	case "score":
		return &proto.Verdict{Scores: map[string]float64{"x": 1}}, nil
	case "recipient":
		return &proto.Verdict{PerRecipient: map[int32]*proto.Outcome{0: {}}}, nil
	case "note":
		return &proto.Verdict{Notes: map[string]string{"n": "a\r\nb"}}, nil
	case "huge":
		return &proto.Verdict{Notes: map[string]string{"n": strings.Repeat("x", 8<<20)}}, nil
	}
	return &proto.Verdict{Notes: map[string]string{"stage": r.Stage.String()}}, nil
}

func serveRawGate() {
	l, err := net.Listen("unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "raw"))
	if err != nil {
		os.Exit(1)
	}
	s := grpc.NewServer()
	proto.RegisterPluginServer(s, rawGate{})
	proto.RegisterGateServer(s, rawGate{})
	fmt.Printf("1|1|unix|%s|grpc\n", l.Addr())
	s.Serve(l)
}

// TestG05 (gates): what breaks the contract is a failure of the plugin and goes no further.
func TestG05GateAnswersGarbage(t *testing.T) {
	h, _ := start(t, defaultTiming(), use("rawgate"))
	if _, ok := h.Filter("rawgate"); ok {
		t.Error("it is no filter")
	}
	g, ok := h.Gate("rawgate")
	if !ok {
		t.Fatal("no gate")
	}
	ask := func(stage sdk.Stage, helo string) (*sdk.Verdict, error) {
		return g.Gate(t.Context(), &sdk.Attempt{Stage: stage, Envelope: mail.Envelope{Client: mail.Client{Helo: helo}}})
	}
	for _, helo := range []string{"code 999", "code 250", "class", "crlf", "discard", "action", "edit", "score", "recipient", "note", "huge"} {
		v, err := ask(sdk.AtHelo, helo)
		if v != nil {
			t.Errorf("%s: %+v", helo, v)
		}
		wantReason(t, err, Error)
	}
	if v, err := ask(sdk.AtHelo, "fine"); err != nil || v.Status.Error() != "550 5.0.0 no" {
		t.Error(v, err)
	}
	if v, err := ask(sdk.AtHelo, "x"); err != nil || v.Notes["stage"] != "STAGE_HELO" {
		t.Error(v, err)
	}
	if v, err := ask(sdk.AtRcpt, "fine"); err != nil || v.Action != sdk.ActionContinue || len(v.Notes) != 0 {
		t.Error("asked at a stage that the manifest does not name:", v, err)
	}
}
