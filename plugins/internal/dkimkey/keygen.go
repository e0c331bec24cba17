package dkimkey

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Record is the DNS record that publishes a key.
type Record struct {
	Name  string `json:"name"`  // of the TXT record, without a final dot
	Value string `json:"value"` // its whole text
}

// Zone is the record as a line of a zone file, the text in strings of at most 255 bytes
// (RFC 1035 §3.3.14).
func (r Record) Zone() string {
	var b strings.Builder
	b.WriteString(r.Name + ". IN TXT (")
	for text := r.Value; text != ""; {
		n := min(len(text), 255)
		b.WriteString(" \"" + text[:n] + "\"")
		text = text[n:]
	}
	b.WriteString(" )")
	return b.String()
}

// Generate makes a key pair for a domain and selector: "rsa" (2048 bits) or "ed25519". The
// private key goes into a new file below dir, with mode 0600; a file that is there is never
// overwritten. It returns the file's path and the record to publish.
func Generate(dir string, domain mail.Domain, selector, algorithm string) (string, Record, error) {
	if err := CheckSelector(selector); err != nil {
		return "", Record{}, err
	}
	if _, literal := domain.Literal(); literal || domain.IsZero() {
		return "", Record{}, fmt.Errorf("%q is not a domain", domain)
	}
	var signer crypto.Signer
	var err error
	switch algorithm {
	case "rsa":
		signer, err = rsa.GenerateKey(rand.Reader, AdviseBits)
	case "ed25519":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("%q is no kind of key: use rsa or ed25519", algorithm)
	}
	if err != nil {
		return "", Record{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return "", Record{}, err
	}
	path := File(dir, domain, selector)
	if err := writeNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return "", Record{}, err
	}
	r, err := recordFor(domain, selector, signer.Public())
	return path, r, err
}

// Record is what publishes the key.
func (k *Key) Record() (Record, error) { return recordFor(k.Domain, k.Selector, k.Signer.Public()) }

func recordFor(domain mail.Domain, selector string, public crypto.PublicKey) (Record, error) {
	r := Record{Name: selector + "._domainkey." + domain.String()}
	switch p := public.(type) {
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(p)
		if err != nil {
			return r, err
		}
		r.Value = "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
	case ed25519.PublicKey:
		// RFC 8463 §4: the key itself, without a wrapping.
		r.Value = "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(p)
	default:
		return r, fmt.Errorf("no record for a key of type %T", public)
	}
	return r, nil
}

// writeNew makes a file durable that did not exist.
func writeNew(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already; choose another selector, or move the file away", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
