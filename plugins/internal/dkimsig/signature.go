package dkimsig

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// The algorithms that signatures are made with. RSA with SHA-1 is not one (RFC 8301 §3.1).
const (
	RSA     = "rsa-sha256"
	Ed25519 = "ed25519-sha256"
)

// Signature is what a DKIM-Signature, an ARC-Message-Signature or an ARC-Seal says. Fields,
// BodyHash, the canonicalizations and Length are not in an ARC-Seal.
type Signature struct {
	Algorithm string // as written, in lower case; it may be one that is not known
	Domain    mail.Domain
	Selector  string
	Fields    []string // h=, in lower case
	Header    Canon
	Body      Canon
	BodyHash  []byte
	Value     []byte // b=
	Length    int64  // l=, in bytes of the canonicalized body; below 0: not said
	Time      time.Time
	Expires   time.Time
}

// ParseSeal reads the tags that every signature has: a, b, d, s and t. With an error it
// returns what it has read until then.
func ParseSeal(tags Tags) (*Signature, error) {
	s := &Signature{Length: -1}
	algorithm, err := tags.need("a")
	if err != nil {
		return s, err
	}
	s.Algorithm = strings.ToLower(algorithm)
	domain, err := tags.need("d")
	if err != nil {
		return s, err
	}
	if s.Domain, err = parseName(domain); err != nil {
		return s, errors.New("tag d is not a domain name")
	}
	selector, err := tags.need("s")
	if err != nil {
		return s, err
	}
	name, err := parseName(selector)
	if err != nil {
		return s, errors.New("tag s is not a selector")
	}
	s.Selector = name.String()
	if s.Time, err = parseTime(tags, "t"); err != nil {
		return s, err
	}
	s.Value, err = decode(tags, "b")
	return s, err
}

// ParseSignature reads the tags of a signature over header and body; both are
// canonicalized as otherwise says where c= is missing. Names in h= may be empty. With an
// error it returns what it has read until then.
func ParseSignature(tags Tags, otherwise Canon) (*Signature, error) {
	s, err := ParseSeal(tags)
	if err != nil {
		return s, err
	}
	if s.Expires, err = parseTime(tags, "x"); err != nil {
		return s, err
	}
	if !s.Expires.IsZero() && !s.Time.IsZero() && s.Expires.Before(s.Time) {
		return s, errors.New("the signature expires before it was made")
	}
	s.Header, s.Body = otherwise, otherwise
	if c, ok := tags.Get("c"); ok {
		if s.Header, s.Body, err = parseCanon(c); err != nil {
			return s, err
		}
	}
	if l, ok := tags.Get("l"); ok {
		n, err := strconv.ParseUint(l, 10, 63)
		if err != nil || l[0] == '+' {
			return s, errors.New("tag l is not a number")
		}
		s.Length = int64(n)
	}
	h, ok := tags.Get("h")
	if !ok {
		return s, errors.New("tag h is missing")
	}
	s.Fields = list(strings.ToLower(h))
	s.BodyHash, err = decode(tags, "bh")
	return s, err
}

// QueryName is where the key is published (RFC 6376 §3.6.2.1).
func (s *Signature) QueryName() string { return s.Selector + "._domainkey." + s.Domain.String() }

// parseName parses a domain name; an address is none.
func parseName(s string) (mail.Domain, error) {
	d, err := mail.ParseDomain(s)
	if err != nil {
		return d, err
	}
	if _, literal := d.Literal(); literal {
		return d, errors.New("an address is not a domain name")
	}
	return d, nil
}

// parseTime reads seconds since 1970 (RFC 6376 §3.5: at most 12 digits need to work).
func parseTime(tags Tags, name string) (time.Time, error) {
	v, ok := tags.Get(name)
	if !ok {
		return time.Time{}, nil
	}
	n, err := strconv.ParseUint(v, 10, 40)
	if err != nil || v[0] == '+' {
		return time.Time{}, fmt.Errorf("tag %s is not a time", name)
	}
	return time.Unix(int64(n), 0), nil
}

// decode reads base64, which may have white space anywhere.
func decode(tags Tags, name string) ([]byte, error) {
	v, err := tags.need(name)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(stripWhite(v))
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("tag %s is not base64", name)
	}
	return b, nil
}

func stripWhite(s string) string {
	if !strings.ContainsAny(s, fws) {
		return s
	}
	return strings.Join(strings.Fields(s), "")
}
