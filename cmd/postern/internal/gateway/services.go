package gateway

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"sync/atomic"

	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/core/expand"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/pluginhost/hostservice"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/core/tlsconf"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// services are the parts of the gateway that plugins may ask. Plugins start before some of
// them do, and a reload replaces others: until there is one, the answer is "try again later".
type services struct {
	g             *Gateway
	intake        atomic.Pointer[intake.Intake]
	directories   atomic.Pointer[directories]
	authenticator atomic.Pointer[auth.Authenticator]
	certs         atomic.Pointer[tlsconf.Server]
	routes        atomic.Pointer[route.Table]
}

// stateRoom is how many bytes of state one plugin may keep.
const stateRoom = 8 << 20

var errNotYet = errors.New("the gateway is still starting")

// forPlugins are the services as the plugin host takes them.
func (s *services) forPlugins() hostservice.Services {
	return hostservice.Services{Submitter: s, Logins: s, Accounts: s, Data: s, Certificates: s, Memory: s, Folders: s, Reinjections: s.g.waits(),
		State: state.NewFacts(stateRoom, s.g.clock)}
}

// Submit puts a plugin's message into the queue.
func (s *services) Submit(ctx context.Context, m hostservice.Submission) (string, error) {
	in, c := s.intake.Load(), s.g.config.Load()
	if in == nil || c == nil {
		return "", errNotYet
	}
	return in.Submit(ctx, intake.Submission{Plugin: m.Plugin, Origin: m.Origin, ReversePath: m.ReversePath, Recipients: m.Recipients, Client: m.Client,
		MaxSize: int64(c.Limits.MessageSize)}, m.Message)
}

// Mechanisms are the SASL mechanisms of now.
func (s *services) Mechanisms() []string {
	if a := s.authenticator.Load(); a != nil {
		return a.Mechanisms()
	}
	return nil
}

// Begin begins a SASL exchange.
func (s *services) Begin(ctx context.Context, c *mail.Client, mechanism string) (hostservice.Login, error) {
	a := s.authenticator.Load()
	if a == nil {
		return nil, errNotYet
	}
	x, err := a.Begin(ctx, c, mechanism)
	if err != nil {
		return nil, err
	}
	return login{x}, nil
}

// login is a SASL exchange as plugins see it.
type login struct{ auth.Exchange }

// Account is who has logged in.
func (l login) Account() mail.Path {
	p, _ := mail.ParsePath(l.Exchange.Account()) // the zero Path is nobody
	return p
}

// Lookup says what an address is.
func (s *services) Lookup(ctx context.Context, address mail.Path) (sdk.Account, error) {
	dirs := s.directories.Load()
	if dirs == nil {
		return sdk.Account{}, errNotYet
	}
	_, local, err := dirs.Local(ctx, address.Domain)
	if err != nil || !local {
		return sdk.Account{}, err
	}
	targets, err := dirs.Resolve(ctx, address)
	var st mail.Status
	if errors.As(err, &st) && st.Permanent() {
		targets, err = nil, nil
	}
	if err != nil {
		return sdk.Account{}, err
	}
	info, err := dirs.Info(ctx, address, targets)
	return sdk.Account{Local: true, Targets: targets, Info: info}, err
}

// GetData reads a plugin's data about an account.
func (s *services) GetData(ctx context.Context, plugin string, account mail.Path, key string) (sdk.Datum, error) {
	d, err := s.g.directory.GetData(ctx, plugin, account, key)
	if errors.Is(err, directory.ErrNotLocal) {
		return sdk.Datum{Account: account, Key: key}, nil // nothing is kept about strangers
	}
	return sdk.Datum(d), err
}

// PutData writes it.
func (s *services) PutData(ctx context.Context, plugin string, account mail.Path, key string, value []byte, version int64) (int64, error) {
	now, err := s.g.directory.PutData(ctx, plugin, account, key, value, version)
	if errors.Is(err, directory.ErrConflict) {
		err = sdk.ErrConflict
	}
	return now, err
}

// ListData lists it.
func (s *services) ListData(ctx context.Context, plugin string, account mail.Path, prefix string, after sdk.Datum, most int) ([]sdk.Datum, error) {
	list, err := s.g.directory.ListData(ctx, plugin, account, prefix, directory.Datum(after), most)
	out := make([]sdk.Datum, len(list))
	for i, d := range list {
		out[i] = sdk.Datum(d)
	}
	if errors.Is(err, directory.ErrNotLocal) {
		return nil, nil
	}
	return out, err
}

// PEM is the certificate of the listeners with its key.
func (s *services) PEM() (certificate, key []byte, err error) {
	certs := s.certs.Load()
	if certs == nil {
		return nil, nil, errNotYet
	}
	c := certs.Certificate()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	for _, block := range c.Certificate {
		certificate = append(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block})...)
	}
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Remembered says whether a plan of the plugin for the recipient has remembered the key.
func (s *services) Remembered(ctx context.Context, plugin string, recipient mail.Path, key string) (bool, error) {
	return s.g.store.Remembered(ctx, expand.MarkKey(plugin, recipient, key), s.g.clock())
}
