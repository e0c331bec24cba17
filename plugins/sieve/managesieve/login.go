package managesieve

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// startTLS is RFC 5804 §2.2. What came with the command was not meant for us, or is somebody's
// attempt to speak in the client's name: it ends the session.
func (s *session) startTLS() reply {
	switch {
	case s.client.TLS != "":
		return s.wrong("TLS is there already")
	case s.in.r.Buffered() > 0:
		return goodbye("", "Nothing may follow STARTTLS before TLS has begun")
	}
	writeReply(s.out, ok("Begin TLS now"))
	if s.out.Flush() != nil {
		return reply{last: true}
	}
	t := tls.Server(s.link, s.tls)
	ctx, cancel := context.WithTimeout(s.ctx, s.server.opt.Timeouts.Handshake)
	defer cancel()
	s.link.readBy(time.Now().Add(s.server.opt.Timeouts.Handshake))
	s.link.writeBy()
	if err := t.HandshakeContext(ctx); err != nil {
		s.log.Debug("managesieve: no TLS", "error", err)
		return reply{last: true} // in the clear nothing more is said
	}
	s.over(t)
	state := t.ConnectionState()
	s.client.TLS = strings.ReplaceAll(tls.VersionName(state.Version), " ", "") + " " + tls.CipherSuiteName(state.CipherSuite)
	s.link.writeBy()
	var err error
	if s.mechanisms, err = s.server.opt.Logins.Mechanisms(s.ctx); err != nil || len(s.mechanisms) == 0 {
		s.log.Warn("managesieve: no log-ins", "error", err)
		return goodbye(CodeTryLater, "Nobody can log in now")
	}
	s.greet()
	return reply{}
}

// serverFirst reports whether the server speaks first in a mechanism: then there is no initial
// response (RFC 5804 §2.1).
func serverFirst(mechanism string) bool {
	return mechanism == "LOGIN" || mechanism == "CRAM-MD5" || mechanism == "DIGEST-MD5"
}

// authenticate is RFC 5804 §2.1.
func (s *session) authenticate(c *command) reply {
	if !c.has(stringArg) && !c.has(stringArg, stringArg) {
		return s.wrong("AUTHENTICATE has a mechanism and perhaps an initial response")
	}
	mechanism := strings.ToUpper(string(c.args[0].text))
	switch {
	case !s.account.IsZero():
		return s.wrong("You have logged in already")
	case s.client.TLS == "":
		s.faults++
		return noCode("ENCRYPT-NEEDED", "Log-ins need TLS")
	case !slices.Contains(s.mechanisms, mechanism):
		return s.wrong("The mechanism is not supported")
	}
	var initial []byte
	if len(c.args) == 2 {
		var bad bool
		if initial, bad = decode(c.args[1]); bad || serverFirst(mechanism) {
			return s.failed(no("The initial response is malformed, or the mechanism has none"))
		}
	}
	if initial == nil && !serverFirst(mechanism) { // nobody else has to wait for it
		var r reply
		if initial, r = s.challenge(nil); initial == nil {
			return r
		}
	}
	client := clientOf(s.client.Addr)
	if room, roomEach := s.server.exchanges.enter(client); !room || !roomEach {
		return noCode(CodeTryLater, "Too many log-ins at a time")
	}
	defer s.server.exchanges.leave(client)
	x, err := s.server.opt.Logins.Login(s.ctx, mechanism, s.client)
	if err != nil {
		return s.refused(mechanism, err)
	}
	defer x.Close()
	return s.converse(mechanism, x, initial)
}

// converse runs an exchange. Its last word may be a challenge of the server, which the client
// answers with an empty string.
func (s *session) converse(mechanism string, x Exchange, response []byte) reply {
	const maxSteps = 16
	for range maxSteps {
		challenge, done, err := x.Next(response)
		if err != nil {
			return s.refused(mechanism, err)
		}
		if done && !x.Account().IsZero() {
			s.account, s.failures, s.faults = x.Account(), 0, 0
			s.loginUntil = time.Now().Add(s.server.opt.Timeouts.Session)
			s.link.known.Store(true)
			s.in.skip = max(maxSkip, 4*int64(s.server.opt.MaxScript))
			s.log.Info("managesieve log-in", "account", s.account.String(), "mechanism", mechanism)
			return ok("You have logged in")
		}
		var r reply
		if response, r = s.challenge(challenge); response == nil {
			return r
		}
	}
	return s.failed(no("The exchange does not end"))
}

// challenge returns the client's response to a challenge, nil if there is none: then the reply
// is how the command ends.
func (s *session) challenge(challenge []byte) (response []byte, r reply) {
	s.link.writeBy()
	s.out.WriteString(quote(base64.StdEncoding.EncodeToString(challenge)) + "\r\n")
	s.link.readBy(time.Now().Add(s.server.opt.Timeouts.Response))
	a, err := s.in.response()
	s.link.writeBy()
	var fault syntaxError
	switch {
	case errors.As(err, &fault):
		return nil, s.failed(no(string(fault)))
	case err != nil:
		return nil, s.lost(err)
	case string(a.text) == "*":
		return nil, s.failed(no("You have cancelled it"))
	}
	response, bad := decode(a)
	if bad {
		return nil, s.failed(no("The response is malformed"))
	}
	return response, reply{}
}

// decode returns the data of a response, which is not nil.
func decode(a arg) (data []byte, bad bool) {
	data = make([]byte, base64.StdEncoding.DecodedLen(len(a.text)))
	n, err := base64.StdEncoding.Strict().Decode(data, a.text)
	return data[:n], err != nil || a.long || a.dropped
}

// refused is the answer to a log-in that was refused, or could not be looked into.
func (s *session) refused(mechanism string, err error) reply {
	var st mail.Status
	if !errors.As(err, &st) || st.IsZero() || st.Success() {
		s.log.Warn("managesieve: log-in cannot be checked", "mechanism", mechanism, "error", err)
		return s.failed(noCode(CodeTryLater, "Log-ins cannot be checked now"))
	}
	switch {
	case st.Code == 421:
		return goodbye(CodeTryLater, st.Text)
	case st.Code == 538:
		return s.failed(noCode("ENCRYPT-NEEDED", st.Text))
	case st.Code == 534:
		return s.failed(noCode("AUTH-TOO-WEAK", st.Text))
	case !st.Permanent():
		return s.failed(noCode(CodeTryLater, st.Text))
	}
	return s.failed(no(st.Text))
}

// failed counts an exchange that failed.
func (s *session) failed(r reply) reply {
	if s.failures++; s.failures >= maxFailures {
		return goodbye(r.code, "Too many failed log-ins")
	}
	return r
}

// unauthenticate is RFC 5804 §2.14.1.
func (s *session) unauthenticate(*command) reply {
	s.account = mail.Path{}
	s.link.known.Store(false)
	s.in.skip = maxSkip
	s.loginBy = time.Now().Add(s.server.opt.Timeouts.Login)
	return ok("You have logged out")
}
