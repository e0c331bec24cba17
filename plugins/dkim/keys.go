package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

const (
	minBits    = 1024 // verifiers ignore shorter keys (RFC 8301 §3.2)
	adviseBits = 2048
	maxKeyFile = 64 << 10
)

// A key signs for one domain.
type key struct {
	domain    mail.Domain
	selector  string
	algorithm string // "rsa-sha256" or "ed25519-sha256"
	signer    crypto.Signer
	bits      int // of an RSA key
	file      string
	buffers   buffers
}

// KeyFile is where the private key of a domain and selector is expected below dir.
func KeyFile(dir string, domain mail.Domain, selector string) string {
	return filepath.Join(dir, domain.String()+"."+selector+".pem")
}

// checkSelector accepts what can be part of a host name and of a file name.
func checkSelector(s string) error {
	d, err := mail.ParseDomain(s)
	if err != nil || d.String() != s {
		return fmt.Errorf("%q is not a selector: use lower case letters, digits and hyphens", s)
	}
	return nil
}

func loadKey(dir string, domain mail.Domain, selector string) (*key, error) {
	if _, ok := domain.Literal(); ok {
		return nil, fmt.Errorf("settings: domains: %s is an address, not a domain", domain)
	}
	k := &key{domain: domain, selector: selector, file: KeyFile(dir, domain, selector)}
	text, err := readSecret(k.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no key for %s: %w; make one with: postern dkim keygen %s --selector %s", domain, err, domain, selector)
	}
	if err != nil {
		return nil, err
	}
	if k.signer, err = parseKey(text); err != nil {
		return nil, fmt.Errorf("%s: %w", k.file, err)
	}
	switch s := k.signer.(type) {
	case *rsa.PrivateKey:
		k.algorithm, k.bits = "rsa-sha256", s.N.BitLen()
		if k.bits < minBits {
			return nil, fmt.Errorf("%s: an RSA key of %d bits is too short: verifiers want %d, better %d", k.file, k.bits, minBits, adviseBits)
		}
	default:
		k.algorithm = "ed25519-sha256"
	}
	return k, nil
}

// readSecret reads a file that others must not be able to read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if fi.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s can be read by every user of this machine (mode %04o): chmod 600 %s", path, fi.Mode().Perm(), path)
	}
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
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
