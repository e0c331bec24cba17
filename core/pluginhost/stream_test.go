package pluginhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// rawStream is a plugin in "another language" that serves a stream, and does with the calls on
// it what the Subject says.
type rawStream struct {
	raw
	mu        sync.Mutex
	rpc       proto.Plugin_StreamServer
	held      []uint64 // calls without an answer
	most      int      // of them at a time
	cancelled int
}

func (*rawStream) Describe(context.Context, *proto.DescribeRequest) (*proto.Manifest, error) {
	return &proto.Manifest{Name: "rawstream", Interfaces: []string{"filter", "gate"}, Stages: uint32(sdk.AtHelo), Stream: true}, nil
}

func (s *rawStream) Stream(rpc proto.Plugin_StreamServer) error {
	s.rpc = rpc
	for {
		batch, err := rpc.Recv()
		if err != nil {
			return nil
		}
		for _, c := range batch.Calls {
			if err := s.take(c); err != nil {
				return err
			}
		}
	}
}

func (s *rawStream) take(c *proto.Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fine := func(id uint64) *proto.Answer {
		return &proto.Answer{Id: id, Verdict: &proto.Verdict{Notes: map[string]string{"id": fmt.Sprint(id)}}}
	}
	send := func(a ...*proto.Answer) error { return s.rpc.Send(&proto.Answers{Answers: a}) }
	failed := func(code codes.Code) error {
		return send(&proto.Answer{Id: c.Id, Error: &proto.CallError{Code: int32(code), Message: "as told", Stack: "here"}})
	}
	if c.Cancel {
		s.cancelled++
		return nil
	}
	if c.Gate != nil {
		return send(fine(c.Id))
	}
	word, arg, _ := strings.Cut(mail.NewHeader(c.Filter.Message.Header).Get("Subject"), " ")
	switch word {
	case "twice":
		return send(fine(c.Id), fine(c.Id))
	case "unknown":
		return send(fine(c.Id+1_000_000), fine(0), fine(c.Id))
	case "hold":
		s.held = append(s.held, c.Id)
		s.most = max(s.most, len(s.held))
		return nil
	case "held":
		a := fine(c.Id)
		a.Verdict.Notes["held"] = fmt.Sprint(len(s.held))
		return send(a)
	case "release": // what was held, backwards, and this
		most, held := s.most, s.held
		s.held = nil
		for i := len(held) - 1; i >= 0; i-- {
			if err := send(fine(held[i])); err != nil {
				return err
			}
		}
		a := fine(c.Id)
		a.Verdict.Notes = map[string]string{"most": fmt.Sprint(most), "cancelled": fmt.Sprint(s.cancelled), "timeout": fmt.Sprint(c.Timeout)}
		return send(a)
	case "empty":
		return send(&proto.Answer{Id: c.Id})
	case "error":
		return failed(codes.PermissionDenied)
	case "unavailable":
		return failed(codes.Unavailable)
	case "ok":
		return failed(codes.OK)
	case "return":
		return nil
	case "end":
		return status.Error(codes.FailedPrecondition, arg)
	case "eof":
		return errEnd
	case "giant":
		a := fine(c.Id)
		a.Verdict.Notes["n"] = strings.Repeat("x", 8<<20)
		return send(a)
	case "garbage":
		return s.rpc.SendMsg([]byte("\xff\xff this is no protobuf"))
	}
	return send(fine(c.Id))
}

// errEnd makes the stream end without an error.
var errEnd = errors.New("the end")

// bytesCodec sends bytes as they are.
type bytesCodec struct{ encoding.CodecV2 }

func (c bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func serveRawStream() {
	l, err := net.Listen("unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "raw"))
	if err != nil {
		os.Exit(1)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{encoding.GetCodecV2("proto")}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := handler(srv, ss); !errors.Is(err, errEnd) {
				return err
			}
			return nil
		}))
	proto.RegisterPluginServer(s, &rawStream{})
	fmt.Printf("1|1|unix|%s|grpc\n", l.Addr())
	s.Serve(l)
}

// Everything about calls that plugins of the SDK have to keep over the stream they keep over
// method calls as well, which plugins in other languages, and an older SDK, are asked by.
func TestTheOtherWay(t *testing.T) {
	if os.Getenv(unaryEnv) != "" || testing.Short() {
		t.Skip("this is it")
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^Test(G01|G02|G05|G06|G14|G18|Caller|ManyCalls|WhileDown|Drafts|Filter|Content|Stop)",
		"-test.skip", "AnswersToNoCall|ErrorsOnTheStream|BrokenStream")
	cmd.Env = append(os.Environ(), unaryEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("no tests to run")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// An answer to a call that was never made, or was answered before, reaches nobody, counts
// against the plugin, and disturbs no other call.
func TestG05AnswersToNoCall(t *testing.T) {
	t.Parallel()
	h, log := start(t, calm(), use("rawstream"))
	f := filterOf(t, h, "rawstream")
	pid := pidOf(t, h, "rawstream")
	for i, subject := range []string{"twice", "unknown"} {
		if v, err := f.Filter(t.Context(), msg(subject)); err != nil || v.Notes["id"] != fmt.Sprint(i+1) {
			t.Errorf("%s: %v, %v", subject, v, err)
		}
	}
	eventually(t, time.Minute, "3 faults", func() bool { return h.Status()[0].Failures == 3 })
	if !strings.Contains(log.String(), "was never made or was answered before") {
		t.Error("the log says nothing")
	}
	g, _ := h.Gate("rawstream")
	if v, err := g.Gate(t.Context(), &sdk.Attempt{Stage: sdk.AtHelo}); err != nil || v.Notes["id"] != "3" {
		t.Errorf("the next one got %v, %v", v, err)
	}
	if pidOf(t, h, "rawstream") != pid {
		t.Error("restarted too early")
	}
	f.Filter(t.Context(), msg("unknown")) // the right answers among them are no excuse
	eventually(t, time.Minute, "another process", func() bool {
		now := pidOf(t, h, "rawstream")
		return now != 0 && now != pid
	})
}

// What is no answer is a failure of the call, with what the plugin says of it.
func TestG05ErrorsOnTheStream(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("rawstream"))
	f := filterOf(t, h, "rawstream")
	for subject, want := range map[string]string{
		"empty":       "neither a verdict nor an error",
		"error":       "as told",
		"unavailable": "as told", // it lives: that is for the host to say
		"ok":          "as told",
	} {
		v, err := f.Filter(t.Context(), msg(subject))
		fl := wantReason(t, err, Error)
		if v != nil || !strings.Contains(fl.Error(), want) || (want == "as told") != (fl.Stack == "here") {
			t.Errorf("%s: %v, %v, stack %q", subject, v, fl, fl.Stack)
		}
	}
	if s := h.Status()[0]; s.Failures != 4 || s.Restarts != 0 {
		t.Errorf("status is %+v", s)
	}
}

// A stream that ends before the process, or breaks the protocol, fails the calls on it and
// costs the process; the next one serves again.
func TestG05BrokenStream(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"end of days", "eof", "giant", "garbage"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h, log := start(t, calm(), use("rawstream"))
			f := filterOf(t, h, "rawstream")
			pid := pidOf(t, h, "rawstream")
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := f.Filter(t.Context(), msg("hold"))
				wantFailure(t, err)
			})
			inFlight(t, h, "rawstream", 1)
			_, err := f.Filter(t.Context(), msg(how))
			wantFailure(t, err)
			wg.Wait()
			eventually(t, time.Minute, "another process", func() bool {
				now := pidOf(t, h, "rawstream")
				return now != 0 && now != pid
			})
			if _, err := f.Filter(t.Context(), msg("fine")); err != nil {
				t.Error(err)
			}
			if !strings.Contains(log.String(), "ended the stream of its calls") {
				t.Error("the log says nothing")
			}
		})
	}
}

func wantFailure(t *testing.T, err error) {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) || f.died || f.Reason() != Error {
		t.Errorf("error is %v", err)
	}
}

// Answers come in any order and reach who asked; there are never more calls in the plugin
// than the contract says, and the others wait within their deadlines.
func TestCallsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("rawstream"))
	f := filterOf(t, h, "rawstream")
	var wg sync.WaitGroup
	ids := make(chan string, proto.MaxCalls)
	for range proto.MaxCalls - 1 {
		wg.Go(func() {
			v, err := f.Filter(t.Context(), msg("hold"))
			if err != nil {
				t.Error(err)
				return
			}
			ids <- v.Notes["id"]
		})
	}
	eventually(t, time.Minute, "all calls in the plugin", func() bool {
		v, err := f.Filter(t.Context(), msg("held"))
		return err != nil || v.Notes["held"] == fmt.Sprint(proto.MaxCalls-1)
	})
	// One more fits, and those after it do not: they end by their deadlines.
	short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	for range 10 {
		wg.Go(func() {
			_, err := f.Filter(short, msg("hold"))
			if err == nil {
				t.Error("no deadline")
			}
		})
	}
	<-short.Done()
	v, err := f.Filter(t.Context(), msg("release"))
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if n := v.Notes["most"]; n != fmt.Sprint(proto.MaxCalls) || v.Notes["cancelled"] != "1" {
		t.Errorf("%s calls were in the plugin at a time, and %s cancelled", n, v.Notes["cancelled"])
	}
	close(ids)
	seen := make(map[string]bool)
	for id := range ids {
		seen[id] = true
	}
	if len(seen) != proto.MaxCalls-1 {
		t.Errorf("%d different answers", len(seen))
	}
	if s := h.Status()[0]; s.Restarts != 0 {
		t.Errorf("status is %+v", s)
	}
}

// A late answer is thrown away and is no fault, however many there are.
func TestLateAnswersAreNoFault(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), Spec{Name: "s", Use: "rawstream", Timeout: 50 * time.Millisecond})
	f := filterOf(t, h, "s")
	pid := pidOf(t, h, "s")
	for range 2 * maxGarbage {
		_, err := f.Filter(t.Context(), msg("hold"))
		wantReason(t, err, Timeout)
	}
	v, err := f.Filter(t.Context(), msg("release"))
	if err != nil {
		t.Fatal(err)
	}
	if n := v.Notes["cancelled"]; n != fmt.Sprint(2*maxGarbage) {
		t.Errorf("%s calls were cancelled", n)
	}
	if _, err := f.Filter(t.Context(), msg("fine")); err != nil {
		t.Error(err)
	}
	if s := h.Status()[0]; s.Failures != 2*maxGarbage || pidOf(t, h, "s") != pid {
		t.Errorf("status is %+v", s)
	}
}

// What a call says travels with it: the remaining time, and that the caller gave up.
func TestDeadlineAndCancelTravel(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("rawstream"), use("filter"))
	f := filterOf(t, h, "rawstream")
	v, err := f.Filter(t.Context(), msg("release"))
	if err != nil {
		t.Fatal(err)
	}
	if us := atoi(t, v.Notes["timeout"]); us < 1_000_000 || us > 60_000_000 {
		t.Errorf("%d microseconds are left of a minute", us)
	}
	// The SDK ends the context of the call: the filter writes a line when that happens.
	f = filterOf(t, h, "filter")
	path := filepath.Join(t.TempDir(), "cancelled")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := f.Filter(ctx, msg("note-end "+path))
		done <- err
	}()
	eventually(t, time.Minute, "the call is in the plugin", func() bool {
		_, err := os.Stat(path + ".begun")
		return err == nil
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	eventually(t, time.Minute, "the plugin stops", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// Calls end by their deadlines even if the plugin does not read, and many are to be sent.
func TestG02DeadlinesWhileThePluginDoesNotRead(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), Spec{Name: "f", Use: "filter", Timeout: 400 * time.Millisecond})
	f := filterOf(t, h, "f")
	eventually(t, time.Minute, "the first answer", func() bool { _, err := f.Filter(t.Context(), msg("look")); return err == nil })
	syscall.Kill(pidOf(t, h, "f"), syscall.SIGSTOP)
	m := msg("look")
	m.Header = mail.NewHeader([]byte("Subject: look\r\nX: " + strings.Repeat("x", proto.MaxHeader-100) + "\r\n\r\n"))
	m.Body = mail.InlineBody(bytes.Repeat([]byte("y"), proto.MaxInline))
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			_, err := f.Filter(t.Context(), m) // until it reads again, nothing but the deadline ends this
			wantReason(t, err, Timeout)
		})
	}
	wg.Wait()
	syscall.Kill(pidOf(t, h, "f"), syscall.SIGCONT)
	eventually(t, time.Minute, "it answers again", func() bool {
		_, err := f.Filter(t.Context(), msg("look"))
		return err == nil
	})
}

// An answer that cannot be encoded is a failure of its call, and of no other.
func TestAnswerThatCannotBeSent(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("filter"))
	f := filterOf(t, h, "filter")
	pid := pidOf(t, h, "filter")
	failed := filepath.Join(t.TempDir(), "failed")
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := f.Filter(t.Context(), msg("until "+failed)); err != nil {
			t.Error(err)
		}
	})
	inFlight(t, h, "filter", 1)
	for _, subject := range []string{"unsendable", "giant"} {
		_, err := f.Filter(t.Context(), msg(subject))
		if fl := wantReason(t, err, Error); !strings.Contains(fl.Error(), "cannot be sent") {
			t.Errorf("%s: %v", subject, fl)
		}
	}
	if err := os.WriteFile(failed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if pidOf(t, h, "filter") != pid {
		t.Error("the process was replaced")
	}
}
