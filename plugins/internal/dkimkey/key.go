package dkimkey

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/plugins/internal/setting"
	"github.com/postern-mail/postern/sdk/mail"
)

const (
	// AdviseBits is the length that RSA keys should have (RFC 8301 §3.2).
	AdviseBits = 2048
	maxKeyFile = 64 << 10
)

// Key signs for one domain.
type Key struct {
	Domain    mail.Domain
	Selector  string
	Algorithm string // dkimsig.RSA or dkimsig.Ed25519
	Signer    crypto.Signer
	Bits      int // of an RSA key; 0 for Ed25519
	Path      string
	Written   time.Time // when the file was
}

// Short reports whether a key should be longer.
func (k *Key) Short() bool { return k.Bits != 0 && k.Bits < AdviseBits }

// File is where the private key of a domain and selector is expected below dir.
func File(dir string, domain mail.Domain, selector string) string {
	return filepath.Join(dir, domain.String()+"."+selector+".pem")
}

// CheckSelector accepts what can be part of a host name and of a file name.
func CheckSelector(s string) error {
	d, err := mail.ParseDomain(s)
	if err != nil || d.String() != s {
		return fmt.Errorf("%q is not a selector: use lower case letters, digits and hyphens", s)
	}
	return nil
}

// Load reads a key. That there is none is [os.ErrNotExist].
func Load(dir string, domain mail.Domain, selector string) (*Key, error) {
	if _, ok := domain.Literal(); ok {
		return nil, fmt.Errorf("%s is an address, not a domain", domain)
	}
	k := &Key{Domain: domain, Selector: selector, Path: File(dir, domain, selector)}
	text, written, err := setting.Private(k.Path, maxKeyFile)
	k.Written = written
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no key for %s: %w; make one with: postern dkim keygen %s --selector %s", domain, err, domain, selector)
	}
	if err != nil {
		return nil, err
	}
	if k.Signer, err = parseKey(text); err != nil {
		return nil, fmt.Errorf("%s: %w", k.Path, err)
	}
	switch s := k.Signer.(type) {
	case *rsa.PrivateKey:
		k.Algorithm, k.Bits = dkimsig.RSA, s.N.BitLen()
		if k.Bits < dkimsig.MinBits {
			return nil, fmt.Errorf("%s: an RSA key of %d bits is too short: verifiers want %d, better %d", k.Path, k.Bits, dkimsig.MinBits, AdviseBits)
		}
	default:
		k.Algorithm = dkimsig.Ed25519
	}
	return k, nil
}

// parseKey reads a private key: PKCS#8 or PKCS#1, RSA or Ed25519.
func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the file has no key in PEM form")
	}
	switch block.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		switch k := k.(type) {
		case *rsa.PrivateKey:
			return k, nil
		case ed25519.PrivateKey:
			return k, nil
		}
		return nil, fmt.Errorf("a key of type %T cannot sign mail: use RSA or Ed25519", k)
	}
	return nil, fmt.Errorf("the file has a %s and not a private key without a password", strings.ToLower(block.Type))
}
