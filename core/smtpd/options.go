package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Policy decides who may connect, send and be sent to. A zero or 2yz status means "go on";
// any other is the reply. A 421 ends the session.
type Policy interface {
	// Connect is asked before the banner. It may fill in the Class and Host of the client.
	Connect(ctx context.Context, c *mail.Client) mail.Status
	// Mail is asked at MAIL; size is the declared size in octets, 0 if none was declared.
	Mail(ctx context.Context, c *mail.Client, reverse mail.Path, size int64) mail.Status
	// Recipient is asked at RCPT. The envelope has the recipients accepted so far.
	Recipient(ctx context.Context, e *mail.Envelope, rcpt mail.Path) mail.Status
}

// HelloPolicy is implemented by a Policy that wants to be asked at HELO, EHLO and LHLO as
// well. The client's Helo is filled in.
type HelloPolicy interface {
	Hello(ctx context.Context, c *mail.Client) mail.Status
}

// EnvelopePolicy is implemented by a Policy that wants to see the whole of MAIL as well.
type EnvelopePolicy interface {
	// Begin is asked after Mail had no objection, with the envelope that the transaction
	// will have; size is as in Mail.
	Begin(ctx context.Context, e *mail.Envelope, size int64) mail.Status
}

// SessionPolicy is implemented by a Policy that keeps something for each session.
type SessionPolicy interface {
	// Session returns the policy of a session that begins. It is called by one goroutine
	// at a time.
	Session() Policy
}

// Authenticator checks passwords. It limits failures per address and account itself; a
// session ends after Limits.AuthFailures anyway.
type Authenticator interface {
	// Mechanisms are the SASL mechanisms to offer, e.g. PLAIN and LOGIN.
	Mechanisms() []string
	// Authenticate checks user name and password and returns the account. An identity other
	// than "" is who the user wants to act as. A refusal is a permanent [mail.Status]
	// (535 5.7.8); any other error that is not a Status is answered 454 4.7.0.
	Authenticate(ctx context.Context, c *mail.Client, identity, username, password string) (account string, err error)
}

// Exchanger is implemented by an Authenticator that has mechanisms besides PLAIN and LOGIN.
type Exchanger interface {
	// Exchange begins an exchange with one of the offered mechanisms.
	Exchange(ctx context.Context, c *mail.Client, mechanism string) (Exchange, error)
}

// Exchange is one SASL exchange.
type Exchange interface {
	// Next takes a response (nil: there was no initial response) and returns the next
	// challenge, or done. A final message of the server is a challenge, to be followed by
	// an empty response. Errors are as in Authenticator.
	Next(response []byte) (challenge []byte, done bool, err error)
	// Account is who logged in, once Next said done.
	Account() string
}

// Intake takes messages over.
type Intake interface {
	// Receive reads r to its end and keeps the message; when it returns without an error
	// the message is durable. The envelope belongs to the callee. The message is in wire
	// form: CRLF line ends only, no dot-stuffing. When r fails, the error that Receive
	// returns is ignored and nothing may be kept. Otherwise the error is the reply, by way
	// of mail.StatusOf. ctx ends when the session is cut, but not once r is at its end.
	Receive(ctx context.Context, e *mail.Envelope, r io.Reader) (Receipt, error)
}

// Receipt is what a client is told about a message that was read completely.
type Receipt struct {
	ID    string      // queue id
	Reply mail.Status // e.g. 250 2.0.0 "Ok: queued as ID"
	// PerRecipient has one status for each recipient of the envelope, for LMTP; nil: Reply
	// is for all of them.
	PerRecipient []mail.Status
}

// Role is what a listener is for.
type Role string

// The roles.
const (
	MX          Role = "mx"
	Submission  Role = "submission"  // RFC 6409; every message is a submitted one
	LMTP        Role = "lmtp"        // RFC 2033
	Reinjection Role = "reinjection" // what a content filter brings back; to this package as MX
)

// TLSMode says how a listener uses TLS.
type TLSMode string

// The modes.
const (
	TLSNone     TLSMode = "none"
	TLSStart    TLSMode = "starttls"
	TLSRequired TLSMode = "required" // STARTTLS before MAIL
	TLSImplicit TLSMode = "implicit" // RFC 8314
)

// AuthMode says whether clients log in.
type AuthMode string

// The modes.
const (
	AuthOff      AuthMode = "off"
	AuthOptional AuthMode = "optional"
	AuthRequired AuthMode = "required"
)

// NetworkLimit is a limit of its own for some networks.
type NetworkLimit struct {
	Networks   []netip.Prefix
	PerAddress int // simultaneous sessions of one address; 0: no limit
}

// Limits bound what clients can use up. A zero field takes its default.
type Limits struct {
	MessageSize  int64          // octets of a message; default 25 MiB
	Recipients   int            // of a transaction; default 1000 (RFC 5321 §4.5.3.1.8 asks for 100)
	Sessions     int            // simultaneous sessions; default 500
	Reserved     int            // of Sessions, for ReservedFor only; default 0
	ReservedFor  []netip.Prefix // networks that may use the reserved ones
	PerAddress   int            // simultaneous sessions of an IPv4 address or IPv6 /64; default 50
	Networks     []NetworkLimit // other limits than PerAddress; the first match counts
	Errors       int            // refused commands since the last accepted message; default 10
	Junk         int            // NOOP, RSET, VRFY and the like since then; default 100
	AuthFailures int            // of a session; default 3
	Chunks       int            // BDAT chunks of a message; default 10,000
	DataLine     int            // octets of a line in a message; default 64 KiB
	MinRate      int            // octets a second, on average, in a message; default 500
}

// Timeouts bound how long clients can make us wait. A zero field takes its default.
type Timeouts struct {
	Greet     time.Duration // wait before the banner for clients that talk early; default: only look
	Command   time.Duration // for one whole command line; default 5 minutes (RFC 5321 §4.5.3.2.7)
	Data      time.Duration // between two parts of a message; default 3 minutes
	Grace     time.Duration // in a message, before MinRate counts; default 1 minute
	Handshake time.Duration // of TLS, and of the PROXY header; default 30 seconds
	Write     time.Duration // for a client to take replies; default 1 minute
	Session   time.Duration // the whole session; default 2 hours
	Linger    time.Duration // for a client to read the last reply after a violation; default 5 seconds
	Delay     time.Duration // before each reply from the third refused command on; default none
}

// Options of a Server.
type Options struct {
	Hostname      string // what the banner says
	Name          string // of the listener, for mail.Client; may be empty
	Role          Role
	TLS           TLSMode
	TLSConfig     *tls.Config // needed unless TLS is none
	Auth          AuthMode
	Policy        Policy
	Authenticator Authenticator // needed unless Auth is off
	Intake        Intake
	Clients       []netip.Prefix // who may connect; nil: everybody; a unix socket has its own permissions
	ProxyFrom     []netip.Prefix // clients that have to send a PROXY header (v1 or v2)
	DSN           bool           // offer DSN (RFC 3461)
	RequireTLS    bool           // offer REQUIRETLS inside TLS (RFC 8689)
	Limits        Limits
	Timeouts      Timeouts
	Log           *slog.Logger
}

func (o *Options) check() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("smtpd: "+format, args...))
		}
	}
	o.Limits.setDefaults()
	o.Timeouts.setDefaults()
	if o.Role == "" {
		o.Role = MX
	}
	if o.TLS == "" {
		o.TLS = TLSNone
	}
	if o.Auth == "" {
		o.Auth = AuthOff
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	_, err := mail.ParseDomain(o.Hostname)
	fault(err != nil, "hostname %q is not a domain name", o.Hostname)
	fault(!slices.Contains([]Role{MX, Submission, LMTP, Reinjection}, o.Role), "unknown role %q", o.Role)
	fault(!slices.Contains([]TLSMode{TLSNone, TLSStart, TLSRequired, TLSImplicit}, o.TLS), "unknown TLS mode %q", o.TLS)
	fault(!slices.Contains([]AuthMode{AuthOff, AuthOptional, AuthRequired}, o.Auth), "unknown auth mode %q", o.Auth)
	fault(o.TLS != TLSNone && o.TLSConfig == nil, "TLS mode %q needs a certificate", o.TLS)
	fault(o.Auth != AuthOff && o.Authenticator == nil, "auth mode %q needs an authenticator", o.Auth)
	fault(o.Auth == AuthRequired && o.TLS == TLSNone, "auth = required needs TLS: passwords are not taken in the clear")
	fault(o.Policy == nil || o.Intake == nil, "policy and intake are needed")
	fault(o.Limits.Reserved < 0 || o.Limits.Reserved > 0 && o.Limits.Reserved >= o.Limits.Sessions, "reserved sessions must be fewer than all sessions")
	return errors.Join(errs...)
}

func (l *Limits) setDefaults() {
	orDefault(&l.MessageSize, 25<<20)
	orDefault(&l.Recipients, 1000)
	orDefault(&l.Sessions, 500)
	orDefault(&l.PerAddress, 50)
	orDefault(&l.Errors, 10)
	orDefault(&l.Junk, 100)
	orDefault(&l.AuthFailures, 3)
	orDefault(&l.Chunks, 10_000)
	orDefault(&l.DataLine, 64<<10)
	orDefault(&l.MinRate, 500)
}

func (t *Timeouts) setDefaults() {
	orDefault(&t.Command, 5*time.Minute)
	orDefault(&t.Data, 3*time.Minute)
	orDefault(&t.Grace, time.Minute)
	orDefault(&t.Handshake, 30*time.Second)
	orDefault(&t.Write, time.Minute)
	orDefault(&t.Session, 2*time.Hour)
	orDefault(&t.Linger, 5*time.Second)
}

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}
