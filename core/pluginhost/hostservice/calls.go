package hostservice

import (
	"context"
	"errors"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// The calls that are one question and one answer.

func checkedKey(key string) error {
	if key == "" || len(key) > maxStateKey || !utf8.ValidString(key) {
		return invalid("a key has 1 to %d bytes of text", maxStateKey)
	}
	return nil
}

// checkedPath is an address of a request; it must be there.
func checkedPath(p *proto.Path) (mail.Path, error) {
	a, err := wire.Path(p)
	if err != nil || a.IsZero() {
		return mail.Path{}, invalid("an address is missing or malformed")
	}
	return a, nil
}

// lifetime is a number of seconds as a plugin says it.
func lifetime(seconds int64) (time.Duration, error) {
	if seconds < 0 {
		return 0, invalid("a lifetime is negative")
	}
	return time.Duration(min(seconds, int64(longestLifetime/time.Second))) * time.Second, nil
}

// Lookup implements proto.HostServer.
func (s *Server) Lookup(ctx context.Context, r *proto.LookupRequest) (*proto.LookupResponse, error) {
	p, err := checkedPath(r.Address)
	if err != nil {
		return nil, err
	}
	if s.services.Accounts == nil {
		return nil, s.unavailable("lookup", errNoService)
	}
	a, err := s.services.Accounts.Lookup(ctx, p)
	if err != nil {
		return nil, s.unavailable("lookup", err)
	}
	return wire.Account(a), nil
}

// GetData implements proto.HostServer.
func (s *Server) GetData(ctx context.Context, r *proto.GetDataRequest) (*proto.GetDataResponse, error) {
	account, err := s.account(r.Account, r.Key)
	if err != nil {
		return nil, err
	}
	d, err := s.services.Data.GetData(ctx, s.plugin, account, r.Key)
	if err != nil {
		return nil, s.unavailable("data", err)
	}
	return &proto.GetDataResponse{Value: d.Value, Version: d.Version}, nil
}

// account checks what every call about data names.
func (s *Server) account(p *proto.Path, key string) (mail.Path, error) {
	account, err := checkedPath(p)
	if err == nil {
		err = checkedKey(key)
	}
	if err == nil && s.services.Data == nil {
		err = s.unavailable("data", errNoService)
	}
	return account, err
}

// PutData implements proto.HostServer.
func (s *Server) PutData(ctx context.Context, r *proto.PutDataRequest) (*proto.PutDataResponse, error) {
	account, err := s.account(r.Account, r.Key)
	if err != nil {
		return nil, err
	}
	if len(r.Value) > maxDataValue {
		return nil, invalid("a value has at most %d bytes", maxDataValue)
	}
	value, version := r.Value, r.Version
	switch {
	case r.Delete:
		value = nil
	case value == nil:
		value = []byte{}
	}
	if r.Any {
		version = sdk.AnyVersion
	} else if version < 0 {
		return nil, invalid("a version is negative")
	}
	now, err := s.services.Data.PutData(ctx, s.plugin, account, r.Key, value, version)
	var st mail.Status
	switch {
	case errors.Is(err, sdk.ErrConflict):
		return &proto.PutDataResponse{Conflict: true, Version: now}, nil
	case errors.As(err, &st) && st.Permanent():
		return nil, invalid("%s", st.Text)
	case err != nil:
		return nil, s.unavailable("data", err)
	}
	return &proto.PutDataResponse{Version: now}, nil
}

// ListData implements proto.HostServer.
func (s *Server) ListData(ctx context.Context, r *proto.ListDataRequest) (*proto.ListDataResponse, error) {
	account, err := wire.Path(r.Account)
	if err != nil {
		return nil, invalid("the address is malformed")
	}
	if len(r.Prefix) > maxStateKey {
		return nil, invalid("a prefix has at most %d bytes", maxStateKey)
	}
	var after sdk.Datum
	if r.After != nil {
		if after.Account, err = checkedPath(r.After.Account); err != nil {
			return nil, err
		}
		after.Key = r.After.Key
	}
	if s.services.Data == nil {
		return nil, s.unavailable("data", errNoService)
	}
	list, err := s.services.Data.ListData(ctx, s.plugin, account, r.Prefix, after, maxDataList+1)
	if err != nil {
		return nil, s.unavailable("data", err)
	}
	resp := &proto.ListDataResponse{More: len(list) > maxDataList}
	for _, d := range list[:min(len(list), maxDataList)] {
		resp.Data = append(resp.Data, &proto.Datum{Account: wire.Paths([]mail.Path{d.Account})[0], Key: d.Key, Version: d.Version, Size: d.Size})
	}
	return resp, nil
}

// Certificate implements proto.HostServer.
func (s *Server) Certificate(context.Context, *proto.CertificateRequest) (*proto.CertificateResponse, error) {
	if s.services.Certificates == nil {
		return nil, s.unavailable("certificate", errNoService)
	}
	certificate, key, err := s.services.Certificates.PEM()
	if err != nil {
		return nil, s.unavailable("certificate", err)
	}
	return &proto.CertificateResponse{Certificate: certificate, Key: key}, nil
}

// state checks what every call about state has.
func (s *Server) state(key string) (State, error) {
	if err := checkedKey(key); err != nil {
		return nil, err
	}
	if s.services.State == nil {
		return nil, s.unavailable("state", errNoService)
	}
	return s.services.State, nil
}

// GetState implements proto.HostServer.
func (s *Server) GetState(_ context.Context, r *proto.GetStateRequest) (*proto.GetStateResponse, error) {
	state, err := s.state(r.Key)
	if err != nil {
		return nil, err
	}
	v, ok := state.Get(s.plugin, r.Key)
	return &proto.GetStateResponse{Value: v, Found: ok}, nil
}

// PutState implements proto.HostServer.
func (s *Server) PutState(_ context.Context, r *proto.PutStateRequest) (*proto.PutStateResponse, error) {
	state, err := s.state(r.Key)
	if err != nil {
		return nil, err
	}
	if len(r.Value) > maxStateValue || len(r.Old) > maxStateValue {
		return nil, invalid("a value has at most %d bytes", maxStateValue)
	}
	life, err := lifetime(r.Lifetime)
	if err != nil {
		return nil, err
	}
	if r.Compare {
		return &proto.PutStateResponse{Done: state.CompareAndSwap(s.plugin, r.Key, r.Old, r.Value, life)}, nil
	}
	state.Put(s.plugin, r.Key, r.Value, life)
	return &proto.PutStateResponse{Done: true}, nil
}

// CountState implements proto.HostServer.
func (s *Server) CountState(_ context.Context, r *proto.CountStateRequest) (*proto.CountStateResponse, error) {
	state, err := s.state(r.Key)
	if err != nil {
		return nil, err
	}
	life, err := lifetime(r.Lifetime)
	if err != nil {
		return nil, err
	}
	return &proto.CountStateResponse{Sum: state.Count(s.plugin, r.Key, r.Delta, life)}, nil
}

// Log implements proto.HostServer.
func (s *Server) Log(ctx context.Context, r *proto.LogRequest) (*proto.LogResponse, error) {
	if len(r.Fields) > maxLogFields || len(r.Message) > maxLogText {
		return nil, invalid("a line has at most %d fields and a short message", maxLogFields)
	}
	s.log.Say(ctx, slog.Level(r.Level), r.Message, r.Fields)
	return &proto.LogResponse{}, nil
}

// Count implements proto.HostServer.
func (s *Server) Count(_ context.Context, r *proto.CountRequest) (*proto.CountResponse, error) {
	if !isCounter(r.Name) {
		return nil, invalid("the name of a counter has 1 to %d lower case letters, digits and underscores", maxCounterName)
	}
	if !s.counters.add(s.plugin, r.Name, r.Delta) {
		return nil, invalid("a plugin has at most %d counters", maxCounters)
	}
	return &proto.CountResponse{}, nil
}

func isCounter(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != "" && len(s) <= maxCounterName
}

// Folders implements proto.HostServer.
func (s *Server) Folders(ctx context.Context, r *proto.FoldersRequest) (*proto.MailboxFoldersResponse, error) {
	recipient, err := checkedPath(r.Recipient)
	if err != nil {
		return nil, err
	}
	if s.services.Folders == nil {
		return nil, s.unavailable("folders", errNoService)
	}
	list, err := s.services.Folders.Folders(ctx, s.plugin, recipient)
	var st mail.Status
	switch {
	case errors.As(err, &st) && st.Permanent():
		return nil, invalid("%s", st.Text)
	case err != nil:
		return nil, s.unavailable("folders", err)
	}
	return &proto.MailboxFoldersResponse{List: wire.FolderList(list)}, nil
}

// Remembered implements proto.HostServer.
func (s *Server) Remembered(ctx context.Context, r *proto.RememberedRequest) (*proto.RememberedResponse, error) {
	recipient, err := checkedPath(r.Recipient)
	if err == nil {
		err = checkedKey(r.Key)
	}
	if err != nil {
		return nil, err
	}
	if s.services.Memory == nil {
		return nil, s.unavailable("remembered", errNoService)
	}
	yes, err := s.services.Memory.Remembered(ctx, s.plugin, recipient, r.Key)
	if err != nil {
		return nil, s.unavailable("remembered", err)
	}
	return &proto.RememberedResponse{Remembered: yes}, nil
}
