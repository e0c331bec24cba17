package auth

import (
	"context"

	"github.com/emersion/go-sasl"

	"github.com/postern-mail/postern/sdk/mail"
)

// ScramSHA256 is the mechanism that shows nobody the password (RFC 7677).
const ScramSHA256 = "SCRAM-SHA-256"

// Mechanisms are the SASL mechanisms to offer; inside TLS only.
func (a *Authenticator) Mechanisms() []string {
	if a.PasswordsOnly {
		return []string{sasl.Plain, sasl.Login}
	}
	return []string{ScramSHA256, sasl.Plain, sasl.Login}
}

// Exchange is one SASL exchange.
type Exchange interface {
	// Next takes a response (nil: there was no initial one). What the server says last is a
	// challenge too, to be followed by an empty response. Errors are as of Authenticate, and
	// 501 5.5.2 for what is malformed.
	Next(response []byte) (challenge []byte, done bool, err error)
	// Account is who has logged in, once it is done.
	Account() string
}

// Begin begins an exchange with one of the mechanisms.
func (a *Authenticator) Begin(ctx context.Context, c *mail.Client, mechanism string) (Exchange, error) {
	x := &simple{}
	check := func(identity, username, password string) (err error) {
		x.account, err = a.Authenticate(ctx, c, identity, username, password)
		return err
	}
	switch {
	case mechanism == sasl.Plain:
		x.Server = NewPlain(check)
	case mechanism == sasl.Login:
		x.Server = NewLogin(check)
	case mechanism == ScramSHA256 && !a.PasswordsOnly:
		return &scramExchange{a: a, ctx: ctx, client: c}, nil
	default:
		return nil, mail.Permanent(504, 5, 4, "Mechanism is not supported")
	}
	return x, nil
}

// simple is a mechanism that ends in Authenticate.
type simple struct {
	sasl.Server
	account string
}

// Account is who has logged in.
func (x *simple) Account() string { return x.account }
