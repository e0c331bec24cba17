package dkimsig

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Sizes of RSA keys, in bits.
const (
	// MinBits: verifiers must not accept less (RFC 8301 §3.2).
	MinBits = 1024
	// MaxBits: verifiers have to know up to 4096 (RFC 8301 §3.2). More costs its signer little
	// and its verifiers much.
	MaxBits = 8192
)

// Errors about keys. Others say that a record is malformed.
var (
	ErrRevoked = errors.New("the key is revoked")
	ErrWeak    = errors.New("the RSA key is too short")
	ErrLarge   = errors.New("the RSA key is too long")
)

// Record is a key as it is published (RFC 6376 §3.6.1).
type Record struct {
	Key     crypto.PublicKey // *rsa.PublicKey or ed25519.PublicKey
	Bits    int              // of an RSA key: its length; 256 for Ed25519
	Testing bool             // t=y: the domain is trying DKIM out
	Strict  bool             // t=s: i= has exactly the domain of d=
	hashes  []string         // h=; nil: all
}

// ParseRecord parses the text of a key record. Of a key that is too weak or too long it
// returns the record, with Bits, and an error.
func ParseRecord(text string) (*Record, error) {
	tags, err := parseTags(text, true) // what people type is not always strict, and there is no harm in it
	if err != nil {
		return nil, err
	}
	if v, ok := tags.Get("v"); ok && (v != "DKIM1" || tags[0].Name != "v") {
		return nil, errors.New("the record is not of version DKIM1")
	}
	if s, ok := tags.Get("s"); ok && !slices.Contains(list(s), "*") && !slices.Contains(list(s), "email") {
		return nil, errors.New("the key is not for mail")
	}
	r := &Record{}
	if h, ok := tags.Get("h"); ok {
		r.hashes = list(strings.ToLower(h))
	}
	if t, ok := tags.Get("t"); ok {
		r.Testing, r.Strict = slices.Contains(list(t), "y"), slices.Contains(list(t), "s")
	}
	p, ok := tags.Get("p")
	if !ok {
		return nil, errors.New("the record has no key")
	}
	if p == "" {
		return nil, ErrRevoked
	}
	der, err := base64.StdEncoding.DecodeString(stripWhite(p))
	if err != nil {
		return nil, errors.New("the key is not base64")
	}
	kind, ok := tags.Get("k")
	if !ok {
		kind = "rsa"
	}
	return r, r.parseKey(kind, der)
}

func (r *Record) parseKey(kind string, der []byte) error {
	switch kind {
	case "ed25519":
		if len(der) != ed25519.PublicKeySize {
			return errors.New("the Ed25519 key has a wrong length")
		}
		r.Key, r.Bits = ed25519.PublicKey(der), 256
		return nil
	case "rsa":
		key, err := parseRSA(der)
		if err != nil {
			return err
		}
		r.Key, r.Bits = key, key.N.BitLen()
		switch {
		case r.Bits < MinBits:
			return ErrWeak
		case r.Bits > MaxBits:
			return ErrLarge
		}
		return nil
	}
	return errors.New("the key is of an unknown kind")
}

// parseRSA reads a SubjectPublicKeyInfo (RFC 6376 §3.6.1, erratum 3017), or the bare key that
// the RFC's text says.
func parseRSA(der []byte) (*rsa.PublicKey, error) {
	if k, err := x509.ParsePKIXPublicKey(der); err == nil {
		if k, ok := k.(*rsa.PublicKey); ok {
			return k, nil
		}
		return nil, errors.New("the key is not an RSA key")
	}
	k, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		return nil, errors.New("the RSA key is malformed")
	}
	return k, nil
}

// Suits reports whether signatures of the algorithm can be made with the key, and the key's
// owner allows it.
func (r *Record) Suits(algorithm string) error {
	kind, hash, _ := strings.Cut(algorithm, "-")
	if r.hashes != nil && !slices.Contains(r.hashes, hash) {
		return fmt.Errorf("the key is not for %s", hash)
	}
	switch r.Key.(type) {
	case *rsa.PublicKey:
		if kind == "rsa" {
			return nil
		}
	case ed25519.PublicKey:
		if kind == "ed25519" {
			return nil
		}
	}
	return errors.New("the key is of another kind than the signature")
}

// Verify reports whether value is a signature of the digest with the key.
func (r *Record) Verify(digest, value []byte) bool {
	switch k := r.Key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, value) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(k, digest, value) // of the hash: RFC 8463 §3
	}
	return false
}

// Sign signs a digest with an RSA or Ed25519 key.
func Sign(key crypto.Signer, digest []byte) ([]byte, error) {
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return key.Sign(nil, digest, crypto.Hash(0))
	}
	return key.Sign(nil, digest, crypto.SHA256)
}
