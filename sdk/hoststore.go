package sdk

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Certificate returns the certificate of the gateway's listeners. It may be renewed at any
// time: ask again now and then, or use [Host.TLSConfig].
func (h *Host) Certificate(ctx context.Context) (tls.Certificate, error) {
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.CertificateResponse, error) {
		return h.api.Certificate(ctx, &proto.CertificateRequest{})
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(r.Certificate, r.Key)
}

// Datum is a piece of data about an account.
type Datum struct {
	Account mail.Path
	Key     string
	Value   []byte // not in lists
	Version int64  // grows with every change; 0: there is none
	Size    int64  // in bytes
}

// Data reads the plugin's own data about an account. If there is none, Version is 0.
func (h *Host) Data(ctx context.Context, account mail.Path, key string) (Datum, error) {
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.GetDataResponse, error) {
		return h.api.GetData(ctx, &proto.GetDataRequest{Account: encodePath(account), Key: key})
	})
	if err != nil {
		return Datum{}, err
	}
	return Datum{Account: account, Key: key, Value: r.Value, Version: r.Version, Size: int64(len(r.Value))}, nil
}

// AnyVersion is for changes whatever there is.
const AnyVersion int64 = -1

// PutData writes data about an account, durably: at most 1 MiB, if the version there is
// (0: none, [AnyVersion]) is the one given; else it is [ErrConflict]. It returns the new
// version.
func (h *Host) PutData(ctx context.Context, account mail.Path, key string, value []byte, version int64) (int64, error) {
	return h.putData(ctx, &proto.PutDataRequest{Account: encodePath(account), Key: key, Value: value}, version)
}

// DeleteData removes data about an account, with the same condition.
func (h *Host) DeleteData(ctx context.Context, account mail.Path, key string, version int64) error {
	_, err := h.putData(ctx, &proto.PutDataRequest{Account: encodePath(account), Key: key, Delete: true}, version)
	return err
}

func (h *Host) putData(ctx context.Context, req *proto.PutDataRequest, version int64) (int64, error) {
	req.Version, req.Any = version, version == AnyVersion
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.PutDataResponse, error) { return h.api.PutData(ctx, req) })
	if err == nil && r.Conflict {
		err = ErrConflict
	}
	return r.GetVersion(), err
}

// ListData calls yield for the plugin's data about an account (the zero Path: about all) whose
// key begins with prefix, in order, without the values, until yield returns false.
func (h *Host) ListData(ctx context.Context, account mail.Path, prefix string, yield func(Datum) bool) error {
	req := &proto.ListDataRequest{Account: encodePath(account), Prefix: prefix}
	for {
		r, err := ask(h, ctx, func(ctx context.Context) (*proto.ListDataResponse, error) { return h.api.ListData(ctx, req) })
		if err != nil {
			return err
		}
		for _, d := range r.Data {
			if !yield(Datum{Account: decodePath(d.Account), Key: d.Key, Version: d.Version, Size: d.Size}) {
				return nil
			}
			req.After = d
		}
		if !r.More {
			return nil
		}
	}
}

// State reads a fact of the plugin's own; ok is false if there is none. State is in the
// gateway's memory: it survives a restart of the plugin, not one of the gateway, and is
// bounded: what was not used for longest goes first.
func (h *Host) State(ctx context.Context, key string) (value []byte, ok bool, err error) {
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.GetStateResponse, error) {
		return h.api.GetState(ctx, &proto.GetStateRequest{Key: key})
	})
	return r.GetValue(), r.GetFound(), err
}

// SetState writes a fact: at most 4 KiB, for some time; 0: as long as there is room.
func (h *Host) SetState(ctx context.Context, key string, value []byte, lifetime time.Duration) error {
	_, err := h.putState(ctx, &proto.PutStateRequest{Key: key, Value: present(value), Lifetime: seconds(lifetime)})
	return err
}

// ForgetState removes a fact.
func (h *Host) ForgetState(ctx context.Context, key string) error {
	_, err := h.putState(ctx, &proto.PutStateRequest{Key: key})
	return err
}

// CompareAndSwapState writes a fact if it is what old says (nil: if there is none), and
// returns whether it did. A nil value removes it.
func (h *Host) CompareAndSwapState(ctx context.Context, key string, old, value []byte, lifetime time.Duration) (bool, error) {
	return h.putState(ctx, &proto.PutStateRequest{Key: key, Value: value, Lifetime: seconds(lifetime), Compare: true, Old: old})
}

func (h *Host) putState(ctx context.Context, req *proto.PutStateRequest) (bool, error) {
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.PutStateResponse, error) { return h.api.PutState(ctx, req) })
	return r.GetDone(), err
}

// CountState adds to a number and returns the sum. It begins again when lifetime has
// passed since the first count.
func (h *Host) CountState(ctx context.Context, key string, delta int64, lifetime time.Duration) (int64, error) {
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.CountStateResponse, error) {
		return h.api.CountState(ctx, &proto.CountStateRequest{Key: key, Delta: delta, Lifetime: seconds(lifetime)})
	})
	return r.GetSum(), err
}

// present keeps an empty value from being none.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// seconds rounds up: a short lifetime is not an endless one.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func decodePaths(ps []*proto.Path) []mail.Path {
	var out []mail.Path
	for _, p := range ps {
		out = append(out, decodePath(p))
	}
	return out
}

func encodePaths(ps []mail.Path) []*proto.Path {
	var out []*proto.Path
	for _, p := range ps {
		out = append(out, encodePath(p))
	}
	return out
}
