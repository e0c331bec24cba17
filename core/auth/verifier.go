package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"

	"github.com/xdg-go/stringprep"
)

// Iterations of the key derivation. RFC 7677 §4 asks for at least 4096 and recommends 15,000
// or more.
const (
	MinIterations     = 4096
	DefaultIterations = 15000
	maxIterations     = 1 << 20 // a stored value beyond this is damage, not care
)

var errDamaged = errors.New("auth: the stored verifier is damaged; set the password again")

// maxPassword bounds what is hashed, in bytes.
const maxPassword = 1024

// Verifier is what is stored of a password: a SCRAM-SHA-256 verifier (RFC 5802 §3). The
// password cannot be found from it except by trying.
type Verifier struct {
	Account    string // whose it is: the canonical address
	Salt       []byte
	Iterations int
	StoredKey  []byte // SHA-256 of the client key
	ServerKey  []byte
	// Apps are further passwords of the account, with the same salt and iterations.
	Apps []Key
}

// Key is what is stored of a further password.
type Key struct {
	Name      string
	StoredKey []byte
	ServerKey []byte
}

// Key derives what is to be stored of another password of the account.
func (v Verifier) Key(password string) (Key, error) {
	prepared, err := prepare(password)
	if err != nil {
		return Key{}, err
	}
	stored, server, err := derive(prepared, v.Salt, v.Iterations)
	return Key{StoredKey: stored, ServerKey: server}, err
}

// keys are all passwords, that without a name first.
func (v Verifier) keys() []Key {
	return append([]Key{{StoredKey: v.StoredKey, ServerKey: v.ServerKey}}, v.Apps...)
}

// find returns the key that match accepts. It asks about each, so that the time says nothing
// about which it was.
func (v Verifier) find(match func(Key) bool) (found Key, ok bool) {
	for _, k := range v.keys() {
		if match(k) {
			found, ok = k, true
		}
	}
	return found, ok
}

// NewVerifier makes the verifier of a password, with a fresh salt.
func NewVerifier(account, password string) (Verifier, error) {
	return newVerifier(account, password, DefaultIterations)
}

func newVerifier(account, password string, iterations int) (Verifier, error) {
	prepared, err := prepare(password)
	if err != nil {
		return Verifier{}, err
	}
	v := Verifier{Account: account, Salt: make([]byte, 16), Iterations: iterations}
	rand.Read(v.Salt) // never fails
	v.StoredKey, v.ServerKey, err = derive(prepared, v.Salt, iterations)
	return v, err
}

// Check reports whether v can be a verifier. A damaged one must not let anybody in.
func (v Verifier) Check() error {
	if len(v.Salt) < 8 || v.Iterations < MinIterations || v.Iterations > maxIterations ||
		len(v.StoredKey) != sha256.Size || len(v.ServerKey) != sha256.Size {
		return errDamaged
	}
	for _, k := range v.Apps {
		if len(k.StoredKey) != sha256.Size || len(k.ServerKey) != sha256.Size {
			return errDamaged
		}
	}
	return nil
}

// prepare is SASLprep (RFC 4013), as SCRAM clients do it.
func prepare(password string) (string, error) {
	if len(password) > maxPassword {
		return "", errors.New("auth: the password is too long")
	}
	p, err := stringprep.SASLprep.Prepare(password)
	if err != nil {
		return "", errors.New("auth: the password has characters that passwords cannot have")
	}
	if p == "" {
		return "", errors.New("auth: the password is empty")
	}
	return p, nil
}

// derive computes StoredKey and ServerKey (RFC 5802 §3).
func derive(prepared string, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, prepared, salt, iterations, sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	key := sha256.Sum256(mac(salted, "Client Key"))
	return key[:], mac(salted, "Server Key"), nil
}

func mac(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// NoPassword is a verifier that no password opens.
func NoPassword() Verifier {
	v := Verifier{Salt: make([]byte, 16), Iterations: DefaultIterations, StoredKey: make([]byte, sha256.Size), ServerKey: make([]byte, sha256.Size)}
	for _, b := range [][]byte{v.Salt, v.StoredKey, v.ServerKey} {
		rand.Read(b) // never fails
	}
	return v
}
