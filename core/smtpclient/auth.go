package smtpclient

import (
	"encoding/base64"

	"github.com/postern-mail/postern/sdk/mail"
)

// authenticate logs in (RFC 4954). A secret is only ever said through TLS with a
// certificate that verified (N-20). Whatever goes wrong is a matter of configuration: the
// mail waits.
func (s *session) authenticate() error {
	if !s.tls || !s.verified {
		return mail.Temporary(451, 7, 11, "no verified TLS with "+s.remote+": the password was not sent")
	}
	cred, err := s.client.credentials(s.target.login)
	if err != nil {
		return mail.Temporary(451, 3, 5, "log-in for "+s.remote+" is not available: "+err.Error())
	}
	switch {
	case s.ext.plain:
		err = s.authPlain(cred)
	case s.ext.login:
		err = s.authLogin(cred)
	default:
		return mail.Temporary(451, 7, 4, s.remote+" offers neither AUTH PLAIN nor AUTH LOGIN")
	}
	if err != nil {
		return err
	}
	if s.reply.code != 235 {
		return s.reply.deferred(7, 8, s.remote, "to our log-in")
	}
	return nil
}

// authPlain is SASL PLAIN (RFC 4616) with an initial response.
func (s *session) authPlain(c Credentials) error {
	return s.command("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+c.Username+"\x00"+c.Password)), nil)
}

// authLogin is the LOGIN mechanism, which some servers have alone.
func (s *session) authLogin(c Credentials) error {
	if err := s.command("AUTH LOGIN", nil); err != nil || s.reply.code != 334 {
		return err
	}
	if err := s.command(base64.StdEncoding.EncodeToString([]byte(c.Username)), nil); err != nil || s.reply.code != 334 {
		return err
	}
	return s.command(base64.StdEncoding.EncodeToString([]byte(c.Password)), nil)
}
