package sdktest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Host plays the gateway for a plugin that asks it for things, with every right. Give its Handle
// to the plugin in [sdk.Config]. Fill in what it should know before, and look at what the
// plugin did under Lock. It has no certificate.
type Host struct {
	Handle *sdk.Host

	sync.Mutex
	Submitted  []Submitted                   // what was submitted
	Passwords  map[string]string             // of accounts, by address; log-ins with PLAIN
	Accounts   map[mail.Path]sdk.Account     // what Lookup says; others are not local
	Mailboxes  map[mail.Path]*sdk.FolderList // what mailboxes tell of their folders; others do not
	Down       bool                          // mailboxes do not answer
	Silent     bool                          // they do not even say so
	Asked      int                           // how many times they were asked
	Marks      map[string]bool               // what is remembered: address, space, key
	Data       map[string][]byte             // address, space, key
	State      map[string][]byte             // without lifetimes
	Counters   map[string]int64
	Lines      []string // what was logged
	versions   map[string]int64
	lastChange int64
	waits      map[string][]*mail.Message // what came back, by token

	proto.UnimplementedHostServer
}

// Submitted is a message that a plugin submitted.
type Submitted struct {
	Origin      mail.Origin
	ReversePath mail.Path
	Recipients  []mail.Path
	Header      mail.Header
	Body        string
}

// NewHost returns a Host that lasts as long as the test.
func NewHost(t testing.TB) *Host {
	t.Helper()
	dir, err := os.MkdirTemp("", "host") // the test's own folder may have too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Passwords: make(map[string]string), Accounts: make(map[mail.Path]sdk.Account), Mailboxes: make(map[mail.Path]*sdk.FolderList), Marks: make(map[string]bool),
		Data: make(map[string][]byte), State: make(map[string][]byte), Counters: make(map[string]int64), versions: make(map[string]int64)}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(proto.MaxMessage), grpc.MaxSendMsgSize(proto.MaxMessage))
	proto.RegisterHostServer(server, h)
	go server.Serve(l)
	if h.Handle, err = sdk.ConnectHost(l.Addr().String(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Handle.Close()
		server.Stop()
		os.RemoveAll(dir)
	})
	return h
}

func dataKey(p *proto.Path, key string) string { return pathOf(p).String() + " " + key }

func pathOf(p *proto.Path) mail.Path {
	v, _ := wire.Path(p)
	return v
}

// Submit implements proto.HostServer.
func (h *Host) Submit(stream grpc.ClientStreamingServer[proto.SubmitRequest, proto.SubmitResponse]) error {
	var s Submitted
	var body bytes.Buffer
	for first := true; ; first = false {
		r, err := stream.Recv()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if first {
			s = Submitted{Origin: mail.Origin(r.Submission.GetOrigin()), ReversePath: pathOf(r.Submission.GetReversePath()), Header: mail.NewHeader(r.Submission.GetHeader())}
			for _, p := range r.Submission.GetRecipients() {
				s.Recipients = append(s.Recipients, pathOf(p))
			}
		}
		body.Write(r.Body)
	}
	s.Body = body.String()
	h.Lock()
	defer h.Unlock()
	h.Submitted = append(h.Submitted, s)
	return stream.SendAndClose(&proto.SubmitResponse{Id: fmt.Sprintf("test%d", len(h.Submitted))})
}

// Mechanisms implements proto.HostServer.
func (h *Host) Mechanisms(context.Context, *proto.MechanismsRequest) (*proto.MechanismsResponse, error) {
	return &proto.MechanismsResponse{Names: []string{"PLAIN"}}, nil
}

// Authenticate implements proto.HostServer.
func (h *Host) Authenticate(stream grpc.BidiStreamingServer[proto.AuthenticateRequest, proto.AuthenticateResponse]) error {
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	if r.Login.GetMechanism() != "PLAIN" || r.Login.GetClient().GetAddr() == "" {
		return status.Error(codes.InvalidArgument, "the mechanism is not PLAIN, or the client has no address")
	}
	refuse := func(st mail.Status) error { return stream.Send(&proto.AuthenticateResponse{Status: wire.Status(st)}) }
	if r.Login.Client.Tls == "" {
		return refuse(mail.Permanent(538, 7, 11, "Encryption required for authentication"))
	}
	if r.Response == nil {
		if err := stream.Send(&proto.AuthenticateResponse{}); err != nil {
			return err
		}
		if r, err = stream.Recv(); err != nil {
			return err
		}
	}
	parts := strings.Split(string(r.Response), "\x00")
	h.Lock()
	defer h.Unlock()
	if len(parts) == 3 {
		if p, ok := h.Passwords[parts[1]]; ok && p == parts[2] {
			return stream.Send(&proto.AuthenticateResponse{Account: wire.Paths([]mail.Path{mail.MustPath(parts[1])})[0]})
		}
	}
	return refuse(mail.Permanent(535, 7, 8, "Authentication credentials invalid"))
}

// Lookup implements proto.HostServer.
func (h *Host) Lookup(_ context.Context, r *proto.LookupRequest) (*proto.LookupResponse, error) {
	h.Lock()
	defer h.Unlock()
	a := h.Accounts[pathOf(r.Address)]
	return wire.Account(a), nil
}

// GetData implements proto.HostServer.
func (h *Host) GetData(_ context.Context, r *proto.GetDataRequest) (*proto.GetDataResponse, error) {
	h.Lock()
	defer h.Unlock()
	k := dataKey(r.Account, r.Key)
	v, ok := h.Data[k]
	if ok && h.versions[k] == 0 {
		h.versions[k] = 1 // filled in by the test
	}
	return &proto.GetDataResponse{Value: v, Version: h.versions[k]}, nil
}

// PutData implements proto.HostServer.
func (h *Host) PutData(_ context.Context, r *proto.PutDataRequest) (*proto.PutDataResponse, error) {
	h.Lock()
	defer h.Unlock()
	k := dataKey(r.Account, r.Key)
	if _, ok := h.Data[k]; ok && h.versions[k] == 0 {
		h.versions[k] = 1
	}
	if now := h.versions[k]; !r.Any && now != r.Version {
		return &proto.PutDataResponse{Conflict: true, Version: now}, nil
	}
	if r.Delete {
		delete(h.Data, k)
		delete(h.versions, k)
		return &proto.PutDataResponse{}, nil
	}
	h.lastChange++
	h.Data[k], h.versions[k] = r.Value, h.lastChange+1
	return &proto.PutDataResponse{Version: h.versions[k]}, nil
}

// ListData implements proto.HostServer.
func (h *Host) ListData(_ context.Context, r *proto.ListDataRequest) (*proto.ListDataResponse, error) {
	h.Lock()
	defer h.Unlock()
	resp := &proto.ListDataResponse{}
	var keys []string
	for k := range h.Data {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		address, key, _ := strings.Cut(k, " ")
		p := wire.Paths([]mail.Path{mail.MustPath(address)})[0]
		if (r.Account == nil || pathOf(r.Account).String() == address) && strings.HasPrefix(key, r.Prefix) {
			resp.Data = append(resp.Data, &proto.Datum{Account: p, Key: key, Version: max(1, h.versions[k]), Size: int64(len(h.Data[k]))})
		}
	}
	return resp, nil
}

// GetState implements proto.HostServer.
func (h *Host) GetState(_ context.Context, r *proto.GetStateRequest) (*proto.GetStateResponse, error) {
	h.Lock()
	defer h.Unlock()
	v, ok := h.State[r.Key]
	return &proto.GetStateResponse{Value: v, Found: ok}, nil
}

// PutState implements proto.HostServer.
func (h *Host) PutState(_ context.Context, r *proto.PutStateRequest) (*proto.PutStateResponse, error) {
	h.Lock()
	defer h.Unlock()
	now, ok := h.State[r.Key]
	if r.Compare && (ok != (r.Old != nil) || ok && !bytes.Equal(now, r.Old)) {
		return &proto.PutStateResponse{}, nil
	}
	delete(h.State, r.Key)
	if r.Value != nil {
		h.State[r.Key] = r.Value
	}
	return &proto.PutStateResponse{Done: true}, nil
}

// CountState implements proto.HostServer.
func (h *Host) CountState(_ context.Context, r *proto.CountStateRequest) (*proto.CountStateResponse, error) {
	h.Lock()
	defer h.Unlock()
	var sum int64
	fmt.Sscan(string(h.State[r.Key]), &sum)
	sum += r.Delta
	h.State[r.Key] = fmt.Append(nil, sum)
	return &proto.CountStateResponse{Sum: sum}, nil
}

// Log implements proto.HostServer.
func (h *Host) Log(_ context.Context, r *proto.LogRequest) (*proto.LogResponse, error) {
	h.Lock()
	defer h.Unlock()
	h.Lines = append(h.Lines, r.Message)
	return &proto.LogResponse{}, nil
}

// Count implements proto.HostServer.
func (h *Host) Count(_ context.Context, r *proto.CountRequest) (*proto.CountResponse, error) {
	h.Lock()
	defer h.Unlock()
	h.Counters[r.Name] += r.Delta
	return &proto.CountResponse{}, nil
}

// Folders implements proto.HostServer.
func (h *Host) Folders(ctx context.Context, r *proto.FoldersRequest) (*proto.MailboxFoldersResponse, error) {
	h.Lock()
	defer h.Unlock()
	h.Asked++
	if h.Silent {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if h.Down {
		return nil, status.Error(codes.Unavailable, "the mailbox is down")
	}
	return &proto.MailboxFoldersResponse{List: wire.FolderList(h.Mailboxes[pathOf(r.Recipient)])}, nil
}

// Remembered implements proto.HostServer.
func (h *Host) Remembered(_ context.Context, r *proto.RememberedRequest) (*proto.RememberedResponse, error) {
	h.Lock()
	defer h.Unlock()
	return &proto.RememberedResponse{Remembered: h.Marks[dataKey(r.Recipient, r.Key)]}, nil
}
