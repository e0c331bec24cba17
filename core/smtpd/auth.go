package smtpd

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/postern-mail/postern/core/smtpcmd"
	"github.com/postern-mail/postern/sdk/mail"
)

// auth checks an AUTH command (RFC 4954 §4) and hands it to go-smtp, which decodes
// responses and runs the exchange.
func (s *session) auth(arg string) feed {
	o := &s.server.opt
	mechanism, initial, _ := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	var st mail.Status
	switch {
	case o.Auth == AuthOff:
		st = mail.Permanent(502, 5, 1, "Command not implemented")
	case !s.secure:
		st = mail.Permanent(538, 7, 11, "Encryption required for authentication")
	case !s.greeted:
		st = mail.Permanent(503, 5, 1, "Say hello first")
	case s.client.User != "":
		st = mail.Permanent(503, 5, 1, "Already authenticated")
	case s.env != nil || s.body != nil:
		st = mail.Permanent(503, 5, 1, "Not during a transaction")
	case mechanism == "":
		st = mail.Permanent(501, 5, 4, "Mechanism is missing")
	case !s.offers(mechanism):
		st = mail.Permanent(504, 5, 4, "Mechanism is not supported")
	case initial != "" && !isBase64(initial):
		st = mail.Permanent(501, 5, 2, "Invalid base64")
	default:
		if initial != "" {
			initial = " " + initial
		}
		return feed{smtpcmd.VerbAuth, "AUTH " + mechanism + initial + "\r\n"}
	}
	s.reply(st)
	return feed{}
}

func (s *session) offers(mechanism string) bool {
	for _, m := range s.server.opt.Authenticator.Mechanisms() {
		if m == mechanism {
			return true
		}
	}
	return false
}

// saslResponse reads the line that answers a challenge.
func (s *session) saslResponse() string {
	line, err := s.w.Response(s.server.opt.Timeouts.Command)
	if err != nil {
		s.lost(err)
		return ""
	}
	text := string(line)
	if text != "*" && text != "" && !isBase64(text) {
		s.badReply = true
		text = "*"
	}
	return text + "\r\n"
}

func isBase64(s string) bool {
	if s == "=" {
		return true
	}
	_, err := base64.StdEncoding.DecodeString(s)
	return err == nil && strings.IndexByte(s, '\r') < 0
}

// exchange is one SASL exchange, as go-smtp drives it.
type exchange struct {
	s         *session
	mechanism string
	username  []byte
	asked     bool // LOGIN: for the user name
	inner     Exchange
}

var errResponse = mail.Permanent(501, 5, 2, "Malformed authentication response")

// Next is one step. Its errors are what go-smtp answers.
func (e *exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	defer e.s.guard(&err)
	var account string
	switch {
	case e.mechanism == "PLAIN":
		account, challenge, err = e.plain(response)
	case e.mechanism == "LOGIN":
		account, challenge, err = e.login(response)
	default:
		account, challenge, err = e.other(response)
	}
	if err != nil {
		return nil, false, e.failed(err)
	}
	if account == "" {
		return challenge, false, nil
	}
	e.s.client.User, e.s.client.Mechanism, e.s.client.Class = account, e.mechanism, mail.Authenticated
	return nil, true, nil
}

// plain is RFC 4616.
func (e *exchange) plain(response []byte) (account string, challenge []byte, err error) {
	if response == nil {
		return "", nil, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return "", nil, errResponse
	}
	return e.check(string(parts[0]), string(parts[1]), string(parts[2]))
}

// login is the LOGIN mechanism of draft-murchison-sasl-login, obsolete and in wide use.
func (e *exchange) login(response []byte) (account string, challenge []byte, err error) {
	switch {
	case e.username != nil:
		return e.check("", string(e.username), string(response))
	case response == nil && !e.asked:
		e.asked = true
		return "", []byte("Username:"), nil
	case len(response) == 0:
		return "", nil, errResponse
	}
	e.username = bytes.Clone(response)
	return "", []byte("Password:"), nil
}

func (e *exchange) check(identity, username, password string) (account string, challenge []byte, err error) {
	if username == "" || strings.IndexByte(username, 0) >= 0 || strings.IndexByte(password, 0) >= 0 {
		return "", nil, errResponse
	}
	s := e.s
	account, err = s.server.opt.Authenticator.Authenticate(s.ctx, &s.client, identity, username, password)
	if err == nil && account == "" {
		err = errors.New("authenticator named no account")
	}
	return account, nil, err
}

// other is a mechanism that the Authenticator runs itself.
func (e *exchange) other(response []byte) (account string, challenge []byte, err error) {
	s := e.s
	if e.inner == nil {
		x, ok := s.server.opt.Authenticator.(Exchanger)
		if !ok {
			return "", nil, mail.Permanent(504, 5, 4, "Mechanism is not supported")
		}
		if e.inner, err = x.Exchange(s.ctx, &s.client, e.mechanism); err != nil {
			return "", nil, err
		}
	}
	challenge, done, err := e.inner.Next(response)
	if err == nil && done {
		if account = e.inner.Account(); account == "" {
			err = errors.New("authenticator named no account")
		}
	}
	return account, challenge, err
}

// failed counts a failure and turns it into the reply. Neither user name nor password is
// logged: people type one where the other belongs.
func (e *exchange) failed(err error) error {
	s := e.s
	var st mail.Status
	if !errors.As(err, &st) || st.Success() || st.IsZero() {
		st = mail.Temporary(454, 7, 0, "Temporary authentication failure")
	}
	s.authFailures++
	// The authenticator logs log-ins that fail; this is for exchanges that do not get there.
	s.log.Debug("authentication failed", "client", s.client.Addr, "mechanism", e.mechanism, "status", st.Error())
	return smtpError(st)
}
