package dkimverify

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/sdk/mail"
)

// Options of a Verifier.
type Options struct {
	// Resolver finds keys. Required.
	Resolver dkimsig.Resolver
	// MaxSignatures is how many signatures of a message are verified, from the top.
	// Default: 8.
	MaxSignatures int
	// LookupTime limits the look-up of each key. Default: 5 s. They run at the same time.
	LookupTime time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Verifier verifies messages.
type Verifier struct {
	o    Options
	bufs dkimsig.Buffers
}

// New returns a Verifier.
func New(o Options) (*Verifier, error) {
	if o.Resolver == nil {
		return nil, errors.New("dkimverify: there is no resolver")
	}
	if o.MaxSignatures < 0 || o.LookupTime < 0 {
		return nil, errors.New("dkimverify: limits are not below zero")
	}
	if o.MaxSignatures == 0 {
		o.MaxSignatures = 8
	}
	if o.LookupTime == 0 {
		o.LookupTime = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Verifier{o: o}, nil
}

// Value is a result as RFC 8601 §2.7.1 names it.
type Value string

// The values. A message without signatures has no results; "none" is for the caller to say.
const (
	Pass      Value = "pass"
	Fail      Value = "fail"      // header or body are not what was signed
	Policy    Value = "policy"    // it may be right, but is not acceptable: weak, expired, one too many
	Neutral   Value = "neutral"   // it is malformed, or of a kind that is not known
	TempError Value = "temperror" // the DNS did not answer
	PermError Value = "permerror" // there is no usable key, or From is not signed
)

// Result is what is known of one signature. What could not be parsed is zero. All texts are
// one line of printable characters.
type Result struct {
	Value     Value
	Reason    string // why it is not Pass; our words, nothing of the message
	Domain    mail.Domain
	Selector  string
	Identity  string // i= as it was said; "@" and the domain where it was not
	Algorithm string // "rsa-sha256"
	Bits      int    // of the key; 0: not known
	// Testing: the domain is trying DKIM out, and the message is to be treated as if it were
	// not signed, whatever Value is (RFC 6376 §3.6.1).
	Testing bool
	// Signature is the start of b=, to tell signatures apart (RFC 6008).
	Signature string
	Fields    []string // the names in h=, in lower case
	Time      time.Time
	Expires   time.Time
}

// FieldName is the field that has a signature.
const FieldName = "DKIM-Signature"

// Verify looks at the signatures of a message. Where there are more than MaxSignatures the
// last result, with nothing in it but Policy, stands for all the others. An error means that
// the body could not be read, or that ctx ended meanwhile.
func (v *Verifier) Verify(ctx context.Context, m *mail.Message) ([]Result, error) {
	fields := dkimsig.NewFields(m.Header)
	all := fields.Named("dkim-signature")
	if len(all) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys := dkimsig.NewKeys(ctx, v.o.Resolver, v.o.LookupTime)
	var bodies dkimsig.Bodies
	checks := make([]*check, min(len(all), v.o.MaxSignatures))
	for i := range checks {
		c := v.read(all[i])
		if checks[i] = c; c.Value == "" {
			keys.Start(c.sig.QueryName())
			bodies.Want(c.sig.Body)
		}
	}
	if err := bodies.Read(ctx, &v.bufs, m); err != nil {
		return nil, fmt.Errorf("dkim: reading the body: %w", err)
	}
	results := make([]Result, len(checks), len(checks)+1)
	for i, c := range checks {
		if c.Value == "" {
			c.finish(fields, keys, &bodies)
		}
		results[i] = c.Result
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("dkim: %w", err)
	}
	if n := len(all) - len(checks); n > 0 {
		results = append(results, Result{Value: Policy, Reason: fmt.Sprintf("too many signatures: %d were not looked at", n)})
	}
	return results, nil
}

// check is a signature that is being verified; its Value is empty until that is known.
type check struct {
	Result
	sig *dkimsig.Signature
	own []byte // the field without the value of b=
	// exact: the domain of i= is that of d=, and not one below it.
	exact bool
}

func (c *check) end(v Value, reason string) *check {
	c.Value, c.Reason = v, reason
	return c
}

// read does what needs neither DNS nor body.
func (v *Verifier) read(raw []byte) *check {
	c := &check{exact: true}
	_, value, _ := strings.Cut(string(raw), ":")
	tags, err := dkimsig.ParseTags(value)
	if err != nil {
		return c.end(Neutral, err.Error())
	}
	c.sig, err = dkimsig.ParseSignature(tags, dkimsig.Simple)
	c.Domain, c.Selector, c.Algorithm, c.Fields = c.sig.Domain, c.sig.Selector, c.sig.Algorithm, c.sig.Fields
	c.Time, c.Expires = c.sig.Time, c.sig.Expires
	c.Identity = "@" + c.Domain.String()
	if err != nil {
		return c.end(Neutral, err.Error())
	}
	b, _ := tags.Get("b")
	b = strings.Join(strings.Fields(b), "")
	c.Signature = b[:min(len(b), 8)]
	if version, _ := tags.Get("v"); version != "1" {
		return c.end(Neutral, "the signature is not of version 1")
	}
	if q, ok := tags.Get("q"); ok && !strings.Contains(":"+strings.Join(strings.Fields(q), "")+":", ":dns/txt:") {
		return c.end(Neutral, "the key is not in the DNS")
	}
	if slices.Contains(c.Fields, "") {
		return c.end(Neutral, "tag h has an empty name")
	}
	if i, ok := tags.Get("i"); ok && !c.identity(i) {
		return c.end(PermError, "i= is not an address of the domain in d=")
	}
	switch c.Algorithm {
	case dkimsig.RSA, dkimsig.Ed25519:
	case "rsa-sha1":
		return c.end(Policy, "SHA-1 is not secure") // RFC 8301 §3.1
	default:
		return c.end(Neutral, "the algorithm is not known")
	}
	if !c.sig.Expires.IsZero() && v.o.Now().After(c.sig.Expires) {
		return c.end(Policy, "the signature has expired")
	}
	own, ok := dkimsig.WithoutValue(raw)
	if !ok {
		return c.end(Neutral, "tag b is missing")
	}
	c.own = own
	return c
}

// maxIdentity bounds i=, in bytes: it is an address.
const maxIdentity = 320

// identity takes i=, whose domain is that of d= or one below it (RFC 6376 §3.5). Domains are
// not case-sensitive.
func (c *check) identity(i string) bool {
	at := strings.LastIndexByte(i, '@')
	if at < 0 || len(i) > maxIdentity || strings.ContainsAny(i, "\r\n\t") {
		return false
	}
	d, err := mail.ParseDomain(i[at+1:])
	if err != nil || !d.Under(c.Domain) {
		return false
	}
	c.Identity, c.exact = i, d == c.Domain
	return true
}

// finish does the rest, with the keys and the hash of the body.
func (c *check) finish(fields *dkimsig.Fields, keys *dkimsig.Keys, bodies *dkimsig.Bodies) {
	if !slices.Contains(c.Fields, "from") {
		c.end(PermError, "From is not signed") // RFC 6376 §6.1.1
		return
	}
	if name := c.added(fields); name != "" {
		c.end(Policy, "a field "+name+" is not signed")
		return
	}
	record, err := keys.Get(c.sig.QueryName())
	if record != nil {
		c.Bits, c.Testing = record.Bits, record.Testing
	}
	switch {
	case errors.Is(err, dkimsig.ErrDNS):
		c.end(TempError, err.Error())
		return
	case errors.Is(err, dkimsig.ErrWeak), errors.Is(err, dkimsig.ErrLarge):
		c.end(Policy, err.Error())
		return
	case err != nil:
		c.end(PermError, err.Error())
		return
	}
	if err := record.Suits(c.Algorithm); err != nil {
		c.end(PermError, err.Error())
		return
	}
	if record.Strict && !c.exact {
		c.end(PermError, "the key is not for subdomains") // t=s
		return
	}
	c.compare(record, fields, bodies)
}

// shown are fields that decide what people see, and are there once (RFC 5322 §3.6).
var shown = []string{"from", "subject", "date", "to", "cc", "reply-to", "content-type", "content-transfer-encoding"}

// added is the name of such a field that is signed, and is there once more than it is signed:
// somebody may have added that for people to see (RFC 6376 §8.15). It is "" if there is none.
func (c *check) added(fields *dkimsig.Fields) string {
	for _, name := range shown {
		signed := 0
		for _, f := range c.Fields {
			if f == name {
				signed++
			}
		}
		if signed > 0 && signed < fields.Count(name) {
			return name
		}
	}
	return ""
}

func (c *check) compare(record *dkimsig.Record, fields *dkimsig.Fields, bodies *dkimsig.Bodies) {
	sum, size := bodies.Sum(c.sig.Body)
	switch {
	case c.sig.Length > size:
		c.end(PermError, "l= is more than the body has") // RFC 6376 §3.5
	case c.sig.Length >= 0 && c.sig.Length < size:
		// RFC 6376 §8.2: what comes after it can be anybody's.
		c.end(Policy, "only a part of the body is signed")
	case subtle.ConstantTimeCompare(sum, c.sig.BodyHash) != 1:
		c.end(Fail, "the body is not what was signed")
	case !record.Verify(fields.Hash(c.sig.Fields, c.sig.Header, c.own), c.sig.Value):
		c.end(Fail, "the header is not what was signed")
	default:
		c.Value = Pass
	}
}
