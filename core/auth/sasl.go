package auth

import (
	"bytes"

	"github.com/emersion/go-sasl"

	"github.com/postern-mail/postern/sdk/mail"
)

// Check is what a mechanism does with what the client said; see Authenticator.Authenticate.
type Check func(identity, username, password string) error

// maxResponse bounds one response of a client, in bytes: two names and a password.
const maxResponse = 2*320 + maxPassword

var errSyntax = mail.Permanent(501, 5, 2, "Malformed authentication response")

// NewPlain is the server's side of PLAIN (RFC 4616).
func NewPlain(check Check) sasl.Server { return &plain{check: check} }

type plain struct {
	check Check
	done  bool
}

// Next takes the one response, perhaps after an empty challenge.
func (p *plain) Next(response []byte) (challenge []byte, done bool, err error) {
	if p.done {
		return nil, false, sasl.ErrUnexpectedClientResponse
	}
	if response == nil {
		return []byte{}, false, nil
	}
	p.done = true
	parts := bytes.Split(response, []byte{0})
	if len(response) > maxResponse || len(parts) != 3 {
		return nil, false, errSyntax
	}
	return nil, true, p.check(string(parts[0]), string(parts[1]), string(parts[2]))
}

// NewLogin is the server's side of LOGIN, which no RFC describes but old clients speak
// (draft-murchison-sasl-login). The initial response, if there is one, is the user name.
func NewLogin(check Check) sasl.Server { return &login{check: check} }

type login struct {
	check    Check
	step     int
	username string
}

// Next asks for the user name, then for the password.
func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	if len(response) > maxResponse || bytes.IndexByte(response, 0) >= 0 {
		l.step = 3
		return nil, false, errSyntax
	}
	switch {
	case l.step == 0 && response == nil:
		l.step = 1
		return []byte("Username:"), false, nil
	case l.step <= 1:
		l.username, l.step = string(response), 2
		return []byte("Password:"), false, nil
	case l.step == 2:
		l.step = 3
		return nil, true, l.check("", l.username, string(response))
	}
	return nil, false, sasl.ErrUnexpectedClientResponse
}
