package sdk

import (
	"context"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Directory knows the addresses of a domain and the passwords of its users: an LDAP server or a
// database, say. The domains that name the plugin in their key directory ask it; clients
// wait for the answer. An error means "try again later" and never that an address does not
// exist or that a password is wrong.
type Directory interface {
	// Resolve returns what an address stands for: itself if it is a mailbox, other addresses,
	// here or elsewhere, if it is an alias or a group (at most 1000), nothing if there is no
	// such address. Whether local parts are compared with regard to case, and what a
	// subaddress is, is the directory's to know. It is called concurrently, at RCPT and
	// again when the message is in.
	Resolve(ctx context.Context, address mail.Path) ([]mail.Path, error)
	// CheckPassword returns the account if the password is right, and the zero Path if it is
	// not or there is no such user. Compare in constant time. It is called concurrently, under
	// the gateway's limits on failed log-ins.
	CheckPassword(ctx context.Context, login mail.Path, password string) (mail.Path, error)
}

func (s *server) Resolve(ctx context.Context, r *proto.ResolveRequest) (*proto.ResolveResponse, error) {
	targets, err := s.directory.Resolve(ctx, decodePath(r.Address))
	if err != nil {
		return nil, failure(err)
	}
	return &proto.ResolveResponse{Targets: encodePaths(targets)}, nil
}

func (s *server) CheckPassword(ctx context.Context, r *proto.CheckPasswordRequest) (*proto.CheckPasswordResponse, error) {
	account, err := s.directory.CheckPassword(ctx, decodePath(r.Login), r.Password)
	if err != nil {
		return nil, failure(err)
	}
	return &proto.CheckPasswordResponse{Account: encodePath(account)}, nil
}
