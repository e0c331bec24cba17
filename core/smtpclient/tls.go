package smtpclient

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// minRSA is the smallest RSA key, in bits, that makes a certificate count as verified.
// (Keys above 8192 bits fail the handshake in crypto/tls.)
const minRSA = 2048

// tlsError is a handshake that failed.
type tlsError struct {
	err error
	// certificate: the handshake itself went well, but nobody vouches for the peer.
	certificate bool
}

func (e *tlsError) Error() string { return "TLS: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// startTLS does the handshake and then speaks through TLS. What had been read before it
// is gone.
func (s *session) startTLS(ctx context.Context) error {
	var verifyErr error
	conf := &tls.Config{
		ServerName:         s.target.host,
		MinVersion:         tls.VersionTLS12, // RFC 8996
		ClientSessionCache: s.client.tickets,
		Time:               s.client.o.Now,
		// We verify ourselves, below: opportunistic TLS goes on after a failure.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			verifyErr = s.client.verify(&s.target, cs.PeerCertificates)
			if s.target.strict {
				return verifyErr
			}
			return nil
		},
	}
	ctx, cancel := context.WithTimeout(ctx, s.client.o.Timeouts.Handshake)
	defer cancel()
	s.setDeadline(s.client.o.Timeouts.Handshake)
	tc := tls.Client(s.nc, conf)
	if err := tc.HandshakeContext(ctx); err != nil {
		return &tlsError{err, verifyErr != nil && s.target.strict}
	}
	s.mu.Lock()
	s.nc = tc
	s.mu.Unlock()
	s.br.Reset(tc)
	s.tls, s.verified = true, verifyErr == nil
	return nil
}

// verify checks a certificate chain for a target: against the pin, or else against the CAs
// and the host's name (RFC 7817).
func (c *Client) verify(t *target, certs []*x509.Certificate) error {
	if len(certs) == 0 {
		return errors.New("no certificate")
	}
	roots := c.o.RootCAs
	if t.rule >= 0 {
		r := &c.rules[t.rule]
		if r.pin != nil {
			sum := sha256.Sum256(certs[0].Raw)
			if subtle.ConstantTimeCompare(sum[:], r.pin) != 1 {
				return errors.New("certificate is not the pinned one")
			}
			return nil
		}
		if r.roots != nil {
			roots = r.roots
		}
	}
	if key, ok := certs[0].PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSA {
		return fmt.Errorf("certificate has an RSA key of %d bits only", key.N.BitLen())
	}
	opts := x509.VerifyOptions{Roots: roots, DNSName: t.host, CurrentTime: c.o.Now(), Intermediates: x509.NewCertPool()}
	for _, cert := range certs[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err := certs[0].Verify(opts)
	return err
}

// aLongTimeAgo is a deadline that ends every wait.
func aLongTimeAgo() time.Time { return time.Unix(1, 0) }
