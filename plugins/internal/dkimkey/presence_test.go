package dkimkey

import (
	"context"
	"net"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

type dns struct {
	text string
	err  error
}

func (d dns) LookupTXT(context.Context, string) ([]string, error) {
	if d.err != nil {
		return nil, d.err
	}
	return []string{d.text}, nil
}

func TestLook(t *testing.T) {
	dir, domain := t.TempDir(), mail.MustDomain("example.org")
	_, other, err := Generate(dir, domain, "other", "ed25519")
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []string{"rsa", "ed25519"} {
		if _, _, err := Generate(dir, domain, algorithm, algorithm); err != nil {
			t.Fatal(err)
		}
		k, err := Load(dir, domain, algorithm)
		if err != nil {
			t.Fatal(err)
		}
		r, err := k.Record()
		if err != nil || r.Name != k.Name() {
			t.Fatalf("%+v, %v", r, err)
		}
		for name, c := range map[string]struct {
			dns  dns
			want Presence
		}{
			"the key":      {dns{text: r.Value}, Published},
			"with flags":   {dns{text: "v=DKIM1; t=y:s; h=sha256;" + r.Value[len("v=DKIM1;"):]}, Published},
			"another":      {dns{text: other.Value}, Different},
			"revoked":      {dns{text: "v=DKIM1; p="}, Different},
			"for SHA-1":    {dns{text: "v=DKIM1; h=sha1;" + r.Value[len("v=DKIM1;"):]}, Different},
			"not a record": {dns{text: "hello"}, Different},
			"no name":      {dns{err: &net.DNSError{IsNotFound: true}}, Missing},
			"no answer":    {dns{err: &net.DNSError{IsTimeout: true}}, Unknown},
		} {
			if got := k.Look(t.Context(), c.dns); got != c.want {
				t.Errorf("%s, %s: %s", algorithm, name, got)
			}
		}
	}
}
