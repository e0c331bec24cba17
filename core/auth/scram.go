package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/postern-mail/postern/sdk/mail"
)

// scramExchange is the server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.
// An account with several passwords has the same salt for each: which one the client means
// shows in its proof.
//
// For a name that is no account the client is told a salt that is always the same for that
// name, and fails at the proof, as with a wrong password.
type scramExchange struct {
	a      *Authenticator
	ctx    context.Context
	client *mail.Client

	step        int
	login       mail.Path
	valid       bool // login names an account, and the client acts as that
	verifier    Verifier
	binding     string // what c= must be
	nonce       string // of both
	clientFirst string // without the GS2 header
	serverFirst string
	account     string
}

// Account is who has logged in.
func (s *scramExchange) Account() string { return s.account }

// Next is one step: the client's first message, its proof, and at the end nothing, after it
// has read the server's own proof.
func (s *scramExchange) Next(response []byte) (challenge []byte, done bool, err error) {
	if len(response) > maxResponse || bytes.IndexByte(response, 0) >= 0 {
		s.step = -1
		return nil, false, errSyntax
	}
	switch s.step {
	case 0:
		if response == nil {
			return []byte{}, false, nil
		}
		s.step = -1
		if err := s.first(string(response)); err != nil {
			return nil, false, err
		}
		s.step = 1
		return []byte(s.serverFirst), false, nil
	case 1:
		s.step = -1
		signature, err := s.final(string(response))
		if err != nil {
			return nil, false, err
		}
		s.step = 2
		return []byte("v=" + base64.StdEncoding.EncodeToString(signature)), false, nil
	case 2:
		s.step = -1
		if len(response) != 0 {
			s.account = ""
			return nil, false, errSyntax
		}
		return nil, true, nil
	}
	return nil, false, sasl.ErrUnexpectedClientResponse
}

// first takes client-first-message and makes server-first-message.
func (s *scramExchange) first(message string) error {
	// gs2-cbind-flag: "y" is a client that could bind and believes that we cannot, which is so.
	flag, rest, ok := strings.Cut(message, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	if !ok || !ok2 || flag != "n" && flag != "y" {
		return errSyntax
	}
	s.binding = base64.StdEncoding.EncodeToString([]byte(flag + "," + authzid + ","))
	parts := strings.Split(bare, ",")
	if len(parts) < 2 { // m= in the first place is an extension that we must know, and do not
		return errSyntax
	}
	name, ok := attribute(parts[0], 'n')
	username, ok2 := saslName(name)
	clientNonce, ok3 := attribute(parts[1], 'r')
	if !ok || !ok2 || !ok3 || !printableNonce(clientNonce) {
		return errSyntax
	}
	s.login, s.valid = s.a.login(username)
	if authzid != "" {
		identity, ok := attribute(authzid, 'a')
		identity, ok2 := saslName(identity)
		if !ok || !ok2 {
			return errSyntax
		}
		if as, ok := s.a.login(identity); !ok || as != s.login {
			s.valid = false
		}
	}
	if err := s.find(username); err != nil {
		return err
	}
	s.clientFirst, s.nonce = bare, clientNonce+rand.Text()
	s.serverFirst = "r=" + s.nonce + ",s=" + base64.StdEncoding.EncodeToString(s.verifier.Salt) + ",i=" + strconv.Itoa(s.verifier.Iterations)
	return nil
}

// find gets the verifier, or makes up one.
func (s *scramExchange) find(username string) error {
	v, ok, err := s.a.Accounts.Verifier(s.ctx, s.login)
	if err == nil && ok {
		err = v.Check()
	}
	if err != nil {
		s.a.Log.Error("log-in cannot be checked", "client", s.client.Addr.String(), "account", s.login.String(), "error", err)
		return errUnavailable
	}
	name := s.login.String()
	if s.login.IsZero() {
		name = username
	}
	salt := mac(s.a.Secret, "salt", name)[:len(s.a.dummy.Salt)]
	s.verifier = s.a.dummy
	s.verifier.Salt = salt
	if ok {
		s.verifier = v
	}
	s.valid = s.valid && ok
	return nil
}

// final takes client-final-message and returns the server's signature.
func (s *scramExchange) final(message string) ([]byte, error) {
	withoutProof, proofText, ok := cutLast(message, ",p=")
	parts := strings.Split(withoutProof, ",")
	if !ok || len(parts) < 2 {
		return nil, errSyntax
	}
	binding, ok := attribute(parts[0], 'c')
	nonce, ok2 := attribute(parts[1], 'r')
	proof, err := base64.StdEncoding.DecodeString(proofText)
	if !ok || !ok2 || err != nil || len(proof) != sha256.Size || binding != s.binding || subtle.ConstantTimeCompare([]byte(nonce), []byte(s.nonce)) != 1 {
		return nil, errSyntax
	}
	authMessage := s.clientFirst + "," + s.serverFirst + "," + withoutProof
	var used Key
	s.account, err = s.a.limited(s.ctx, s.client, s.login.String(), func() (string, error) {
		key, ok := s.verifier.find(func(k Key) bool { return proves(proof, k.StoredKey, authMessage) })
		if !ok || !s.valid {
			return "", nil
		}
		used = key
		s.a.used(s.ctx, s.verifier.Account, key.Name)
		return s.verifier.Account, nil
	})
	if err != nil {
		return nil, err
	}
	return mac(used.ServerKey, authMessage), nil
}

// proves reports whether the proof was made by who knows the key that stored is the hash of.
func proves(proof, stored []byte, authMessage string) bool {
	key := mac(stored, authMessage)
	subtle.XORBytes(key, key, proof)
	sum := sha256.Sum256(key)
	return hmac.Equal(sum[:], stored)
}

func attribute(s string, name byte) (string, bool) {
	if len(s) < 2 || s[0] != name || s[1] != '=' {
		return "", false
	}
	return s[2:], true
}

// saslName decodes a name: "=2C" is a comma, "=3D" an equals sign, and there is no other "=".
func saslName(s string) (string, bool) {
	if !strings.Contains(s, "=") {
		return s, s != ""
	}
	var b strings.Builder
	for {
		plain, rest, found := strings.Cut(s, "=")
		b.WriteString(plain)
		switch {
		case !found:
			return b.String(), true
		case strings.HasPrefix(rest, "2C"):
			b.WriteByte(',')
		case strings.HasPrefix(rest, "3D"):
			b.WriteByte('=')
		default:
			return "", false
		}
		s = rest[2:]
	}
}

func printableNonce(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e || s[i] == ',' {
			return false
		}
	}
	return s != ""
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
