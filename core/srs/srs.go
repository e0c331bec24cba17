// Package srs rewrites the reverse-path of mail that is sent on to another domain (the
// Sender Rewriting Scheme): SPF there would refuse it with the sender's own. A report about
// it comes back to an address of ours, which says whose mail it was:
//
//	SRS0=hash=tt=domain=local@ours        of local@domain
//	SRS1=hash=first==hash=tt=domain=local@ours   of what the host first has rewritten already
//
// It promises: only addresses made with the key are taken back, compared in constant time,
// and those of the first kind for some days only; nothing has to be stored. An address that
// is too long for a local part (RFC 5321 §4.5.3.1.1) stays as it is.
//
// It refuses to know who sends what on, and what is ours. A Rewriter never changes and is safe
// for concurrent use.
package srs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Options of a Rewriter.
type Options struct {
	Domain   mail.Domain   // of the addresses it makes
	Key      []byte        // secret, 16 bytes at least
	Lifetime time.Duration // for which they are good; 0: three weeks
	Clock    func() time.Time
}

// Rewriter makes addresses and takes them back.
type Rewriter struct{ Options }

// The limits of a lifetime: time is told in days, modulo 1024.
const (
	day             = 24 * time.Hour
	defaultLifetime = 21 * day
	longestLifetime = 365 * day
	period          = 1024
)

// Errors of Reverse.
var (
	// ErrNotOurs: it is no address of this kind.
	ErrNotOurs = errors.New("srs: not a rewritten address")
	// ErrForged: it was not made with the key.
	ErrForged = errors.New("srs: forged")
	// ErrExpired: it is too old.
	ErrExpired = errors.New("srs: expired")
)

// New checks the options and returns a Rewriter.
func New(o Options) (*Rewriter, error) {
	if o.Lifetime == 0 {
		o.Lifetime = defaultLifetime
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	switch {
	case o.Domain.IsZero():
		return nil, errors.New("srs: Domain is missing")
	case len(o.Key) < 16:
		return nil, errors.New("srs: Key is too short")
	case o.Lifetime < day || o.Lifetime > longestLifetime:
		return nil, errors.New("srs: Lifetime is from one day to a year")
	}
	return &Rewriter{o}, nil
}

// base32 in lower case: hosts in between may fold the case of a local part.
const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

// hashLength is that of the hash, in characters of five bits. A guess reaches one address.
const hashLength = 6

// hash signs parts without regard to case.
func (r *Rewriter) hash(parts ...string) string {
	m := hmac.New(sha256.New, r.Key)
	m.Write([]byte(strings.ToLower(strings.Join(parts, "="))))
	return base32.NewEncoding(alphabet).EncodeToString(m.Sum(nil))[:hashLength]
}

func (r *Rewriter) genuine(hash string, parts ...string) bool {
	return hmac.Equal([]byte(strings.ToLower(hash)), []byte(r.hash(parts...)))
}

// stamp is the day, modulo period, in two characters.
func (r *Rewriter) stamp() string {
	d := r.Clock().Unix() / int64(day/time.Second) % period
	return string([]byte{alphabet[d>>5], alphabet[d&31]})
}

// age is how long ago a stamp was made, in days.
func (r *Rewriter) age(stamp string) (int64, bool) {
	if len(stamp) != 2 {
		return 0, false
	}
	a, b := strings.IndexByte(alphabet, stamp[0]|0x20), strings.IndexByte(alphabet, stamp[1]|0x20)
	if stamp[0] < 'A' {
		a = strings.IndexByte(alphabet, stamp[0])
	}
	if stamp[1] < 'A' {
		b = strings.IndexByte(alphabet, stamp[1])
	}
	if a < 0 || b < 0 {
		return 0, false
	}
	today := r.Clock().Unix() / int64(day/time.Second) % period
	return (today - int64(a<<5|b) + period) % period, true
}

// Forward returns the reverse-path with which mail of from is sent on; from itself if that is
// null, or ours already, or cannot be rewritten: ok then is false.
func (r *Rewriter) Forward(from mail.Path) (to mail.Path, ok bool) {
	if from.IsZero() || from.Domain.IsZero() || from.Domain == r.Domain {
		return from, false
	}
	kind, rest := split(from.Local)
	var local string
	switch kind {
	case '0': // of another host: that host takes it back (SRS1)
		local = "SRS1=" + r.hash(from.Domain.String(), rest) + "=" + from.Domain.String() + "=" + rest
	case '1': // its first host is named in it; we are one more in between
		if _, first, opaque, fine := cutFirst(rest); fine {
			local = "SRS1=" + r.hash(first, opaque) + "=" + first + "=" + opaque
			break
		}
		fallthrough
	default:
		stamp, domain := r.stamp(), from.Domain.String()
		local = "SRS0=" + r.hash(stamp, domain, from.Local) + "=" + stamp + "=" + domain + "=" + from.Local
	}
	to, err := mail.MakePath(local, r.Domain.String())
	if err != nil {
		return from, false
	}
	return to, true
}

// split returns '0' or '1' of a rewritten local part, and what follows with its separator for
// '0', without it for '1'.
func split(local string) (kind byte, rest string) {
	if len(local) < 6 || !strings.EqualFold(local[:3], "SRS") || !strings.ContainsRune("=+-", rune(local[4])) {
		return 0, ""
	}
	switch local[3] {
	case '0':
		return '0', local[4:]
	case '1':
		return '1', local[5:]
	}
	return 0, ""
}

// cutFirst cuts what follows "SRS1=": hash, first host, and the rest of its address with the separator.
func cutFirst(rest string) (hash, first, opaque string, ok bool) {
	hash, rest, a := strings.Cut(rest, "=")
	first, opaque, b := strings.Cut(rest, "=")
	if _, err := mail.ParseDomain(first); !a || !b || err != nil || opaque == "" || !strings.ContainsRune("=+-", rune(opaque[0])) {
		return "", "", "", false
	}
	return hash, first, opaque, true
}

// Reverse returns whose mail was sent on with the reverse-path p: where a report about it has to
// go. The error is ErrNotOurs, ErrForged or ErrExpired.
func (r *Rewriter) Reverse(p mail.Path) (mail.Path, error) {
	if p.Domain != r.Domain {
		return mail.Path{}, ErrNotOurs
	}
	kind, rest := split(p.Local)
	switch kind {
	case '0':
		return r.reverse0(rest[1:])
	case '1':
		hash, first, opaque, ok := cutFirst(rest)
		if !ok || !r.genuine(hash, first, opaque) {
			return mail.Path{}, ErrForged
		}
		return made("SRS0"+opaque, first)
	}
	return mail.Path{}, ErrNotOurs
}

func (r *Rewriter) reverse0(rest string) (mail.Path, error) {
	part := strings.SplitN(rest, "=", 4)
	if len(part) != 4 || !r.genuine(part[0], part[1], part[2], part[3]) {
		return mail.Path{}, ErrForged
	}
	age, ok := r.age(part[1])
	if !ok {
		return mail.Path{}, ErrForged
	}
	if time.Duration(age)*day > r.Lifetime {
		return mail.Path{}, ErrExpired
	}
	return made(part[3], part[2])
}

// made is an address out of one with our hash; anything else than an address has none.
func made(local, domain string) (mail.Path, error) {
	p, err := mail.MakePath(local, domain)
	if err != nil {
		return mail.Path{}, ErrForged
	}
	return p, nil
}
