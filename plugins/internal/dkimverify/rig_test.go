package dkimverify

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/sdk/mail"
)

// zone is a DNS with texts by name.
type zone map[string]string

func (z zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	if v, ok := z[name]; ok {
		return []string{v}, nil
	}
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}

// published are the keys of the examples in RFC 6376 appendix C and RFC 8463 appendix A.
var published = zone{
	"brisbane._domainkey.example.com":          rfc6376Key,
	"test._domainkey.football.example.com":     rfc8463Key,
	"brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
}

const rfc6376Key = "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt" +
	"IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"

const rfc8463Key = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutA" +
	"CDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"

func example(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\n", "\r\n")
}

func message(wire string) *mail.Message {
	h, body := mail.SplitMessage([]byte(wire))
	return &mail.Message{Header: h, Body: mail.InlineBody(body)}
}

func verify(t testing.TB, o Options, wire string) []Result {
	t.Helper()
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := v.Verify(t.Context(), message(wire))
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// values are the results in a line: "pass fail".
func values(rs []Result) string {
	var b []string
	for _, r := range rs {
		b = append(b, string(r.Value))
	}
	return strings.Join(b, " ")
}

// signer makes signatures with the library, which is of another make.
type signer struct {
	key     crypto.Signer
	options msgauth.SignOptions
	record  string // flags and more of the key record
}

func newSigner(t testing.TB, algorithm string) *signer {
	t.Helper()
	s := &signer{options: msgauth.SignOptions{Domain: "example.org", Selector: "s1", HeaderKeys: []string{"From", "Subject"}}}
	var err error
	if algorithm == "rsa" {
		s.key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		_, s.key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.options.Signer = s.key
	return s
}

func (s *signer) zone() zone {
	return zone{s.options.Selector + "._domainkey." + s.options.Domain: publish(s.key.Public(), s.record)}
}

// publish is the record of a key.
func publish(k crypto.PublicKey, more string) string {
	if k, ok := k.(ed25519.PublicKey); ok {
		return "v=DKIM1; k=ed25519; " + more + "p=" + base64.StdEncoding.EncodeToString(k)
	}
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		panic(err)
	}
	return "v=DKIM1; " + more + "p=" + base64.StdEncoding.EncodeToString(der)
}

func (s *signer) sign(t testing.TB, wire string) string {
	t.Helper()
	var b bytes.Buffer
	if err := msgauth.Sign(&b, strings.NewReader(wire), &s.options); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const plain = "From: Ann <ann@example.org>\r\nSubject:  some   thing\r\n\tfolded \r\nTo: bob@example.net\r\n\r\nHello  Bob.\r\n"

// own signs relaxed/simple with tags of the test's choice.
func own(t testing.TB, s *signer, tags, wire string) string {
	t.Helper()
	m := message(wire)
	var bodies dkimsig.Bodies
	bodies.Want(dkimsig.Simple)
	if err := bodies.Read(t.Context(), new(dkimsig.Buffers), m); err != nil {
		t.Fatal(err)
	}
	bh, _ := bodies.Sum(dkimsig.Simple)
	algorithm := "rsa-sha256"
	if _, ok := s.key.(ed25519.PrivateKey); ok {
		algorithm = "ed25519-sha256"
	}
	field := fmt.Sprintf("DKIM-Signature: v=1; a=%s; s=%s; c=relaxed; h=from:from:subject; %s bh=%s; b=", algorithm, s.options.Selector, tags, base64.StdEncoding.EncodeToString(bh))
	digest := dkimsig.NewFields(m.Header).Hash([]string{"from", "from", "subject"}, dkimsig.Relaxed, []byte(field+"\r\n"))
	value, err := dkimsig.Sign(s.key, digest)
	if err != nil {
		t.Fatal(err)
	}
	return field + base64.StdEncoding.EncodeToString(value) + "\r\n" + wire
}
