package dkim

import (
	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/sdk/mail"
)

// Record is the DNS record that publishes a key.
type Record = dkimkey.Record

// KeyFile is where the private key of a domain and selector is expected below dir.
func KeyFile(dir string, domain mail.Domain, selector string) string {
	return dkimkey.File(dir, domain, selector)
}

// Generate makes a key pair for a domain and selector: "rsa" (2048 bits) or "ed25519". The
// private key goes into a new file below dir, with mode 0600; a file that is there is never
// overwritten. It returns the file's path and the record to publish.
func Generate(dir string, domain mail.Domain, selector, algorithm string) (string, Record, error) {
	return dkimkey.Generate(dir, domain, selector, algorithm)
}

// ReadRecord returns the record that publishes the key in the file below dir.
func ReadRecord(dir string, domain mail.Domain, selector string) (Record, error) {
	k, err := dkimkey.Load(dir, domain, selector)
	if err != nil {
		return Record{}, err
	}
	return k.Record()
}
