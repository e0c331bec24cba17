package smtpclient

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/resolver"
	"github.com/postern-mail/postern/sdk/mail"
)

// Options of a Client.
type Options struct {
	Hostname string            // our name in EHLO; a domain name or an address literal
	Resolver resolver.Resolver // required

	// Destinations are rules for next hops; the first that matches holds.
	Destinations []Destination
	// Credentials returns the log-in that a hop's Credentials name. Required where hops
	// name any.
	Credentials func(name string) (Credentials, error)
	// OwnAddresses are what our listeners are bound to: mail never goes there (L-03).
	// An unspecified address stands for every address of this host.
	OwnAddresses []netip.AddrPort

	Timeouts Timeouts
	Pool     Pool
	// MaxAddresses are tried for one domain in one attempt (N-08). Default: 5.
	MaxAddresses int
	// MaxRecipients of one transaction; more take several. Default: 100, which every
	// server must take (RFC 5321 §4.5.3.1.8).
	MaxRecipients int

	RootCAs *x509.CertPool   // default: the system's
	Now     func() time.Time // the clock for certificates; default: time.Now
	Log     *slog.Logger     // default: silent
	// Dial opens a connection to "ip:port" (tcp) or a path (unix). Default: the
	// network's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Timeouts of the phases of a session. The defaults are those of RFC 5321 §4.5.3.2.
type Timeouts struct {
	Dial      time.Duration // 30 s
	Banner    time.Duration // 5 min
	Command   time.Duration // EHLO, STARTTLS, AUTH, RSET: 5 min
	Handshake time.Duration // TLS: 30 s
	Mail      time.Duration // 5 min
	Rcpt      time.Duration // 5 min
	Data      time.Duration // the reply to DATA: 2 min
	Block     time.Duration // every write of message text: 3 min
	Dot       time.Duration // the reply to the final dot: 10 min
	// Failover is the limit for connecting and for the greeting together while another
	// address is left to try: 15 s.
	Failover time.Duration
	// Attempt is the limit for everything together: 30 min.
	Attempt time.Duration
}

// Pool limits the connections kept for reuse.
type Pool struct {
	MaxIdle     time.Duration // an unused connection is closed after this; default: 5 s
	MaxMessages int           // per connection; default: 100
	MaxConns    int           // unused ones, all together; default: 100. Below 0: no reuse
}

// Credentials are a log-in. They never print.
type Credentials struct{ Username, Password string }

// String hides the secret.
func (Credentials) String() string { return "[credentials]" }

// GoString hides the secret.
func (Credentials) GoString() string { return "[credentials]" }

// LogValue hides the secret.
func (Credentials) LogValue() slog.Value { return slog.StringValue("[credentials]") }

// TLS is how much a destination insists on TLS.
type TLS uint8

// The TLS modes.
const (
	// Opportunistic uses TLS where it is offered and does not mind whose certificate it is;
	// where the handshake fails, mail goes in the clear (RFC 7435).
	Opportunistic TLS = iota
	// Required defers mail unless there is TLS with a certificate that verifies.
	Required
)

// Destination is a rule for next hops.
type Destination struct {
	// Match is "example.org", "*.example.org" (every name below it), "*" (all) or an IP
	// address. It is compared with the recipient's domain, where its MX are used, and
	// with the next hop's name.
	Match string
	TLS   TLS
	// CAFile holds the only CAs that count for this destination, in PEM.
	CAFile string
	// Pin is "sha256:" and the fingerprint of the one certificate that counts, in
	// hexadecimal (colons allowed) or base64. Names, dates and CAs then do not matter.
	Pin string
	// AllowPrivate permits addresses found through DNS that are not of the public
	// internet (N-06).
	AllowPrivate bool
}

// rule is a Destination, checked.
type rule struct {
	Destination
	roots *x509.CertPool
	pin   []byte // 32 bytes, or nil
}

func makeRule(d Destination) (rule, error) {
	r := rule{Destination: d}
	d.Match = strings.ToLower(d.Match)
	r.Match = d.Match
	name := strings.TrimPrefix(d.Match, "*.")
	if _, err := netip.ParseAddr(name); err != nil && name != "*" {
		parsed, err := mail.ParseDomain(name)
		if err != nil {
			return rule{}, fmt.Errorf("match %q: %w", d.Match, err)
		}
		r.Match = strings.TrimSuffix(d.Match, name) + parsed.String()
	}
	if d.TLS > Required {
		return rule{}, errors.New("tls is neither opportunistic nor required")
	}
	if d.CAFile != "" {
		pem, err := os.ReadFile(d.CAFile)
		if err != nil {
			return rule{}, fmt.Errorf("ca_file: %w", err)
		}
		if r.roots = x509.NewCertPool(); !r.roots.AppendCertsFromPEM(pem) {
			return rule{}, fmt.Errorf("ca_file %s has no certificate in PEM", d.CAFile)
		}
	}
	if d.Pin != "" {
		pin, err := parsePin(d.Pin)
		if err != nil {
			return rule{}, err
		}
		r.pin = pin
	}
	return r, nil
}

func parsePin(s string) ([]byte, error) {
	text, ok := strings.CutPrefix(s, "sha256:")
	if ok {
		if b, err := hex.DecodeString(strings.ReplaceAll(text, ":", "")); err == nil && len(b) == 32 {
			return b, nil
		}
		if b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "=")); err == nil && len(b) == 32 {
			return b, nil
		}
	}
	return nil, fmt.Errorf("pin %q is not sha256: and 32 bytes in hexadecimal or base64", s)
}

// matches reports whether the rule is for name, a lower-case host or domain.
func (r *rule) matches(name string) bool {
	if r.Match == "*" {
		return true
	}
	if parent, ok := strings.CutPrefix(r.Match, "*"); ok {
		return len(name) > len(parent) && strings.HasSuffix(name, parent)
	}
	return name != "" && r.Match == name
}

func orDefault[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

func (o *Options) setDefaults() {
	t := &o.Timeouts
	orDefault(&t.Dial, 30*time.Second)
	orDefault(&t.Banner, 5*time.Minute)
	orDefault(&t.Command, 5*time.Minute)
	orDefault(&t.Handshake, 30*time.Second)
	orDefault(&t.Mail, 5*time.Minute)
	orDefault(&t.Rcpt, 5*time.Minute)
	orDefault(&t.Data, 2*time.Minute)
	orDefault(&t.Block, 3*time.Minute)
	orDefault(&t.Dot, 10*time.Minute)
	orDefault(&t.Failover, 15*time.Second)
	orDefault(&t.Attempt, 30*time.Minute)
	orDefault(&o.Pool.MaxIdle, 5*time.Second)
	orDefault(&o.Pool.MaxMessages, 100)
	orDefault(&o.Pool.MaxConns, 100)
	orDefault(&o.MaxAddresses, 5)
	orDefault(&o.MaxRecipients, 100)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
}
