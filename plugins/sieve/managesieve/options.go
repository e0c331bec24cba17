package managesieve

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Scripts keeps the scripts of accounts. An error that is (or wraps) a [*Refusal] is the answer
// to the client; any other means "try again later". Names have been checked (RFC 5804 §1.6).
type Scripts interface {
	List(ctx context.Context, account mail.Path) ([]Script, error)
	Get(ctx context.Context, account mail.Path, name string) (text []byte, err error)
	// HaveSpace says whether a script of that name and size, in bytes, could be put.
	HaveSpace(ctx context.Context, account mail.Path, name string, size int64) error
	// Put stores a script without fault, in the place of one with that name. The warnings are
	// lines about what it may not have been meant to do; "": none.
	Put(ctx context.Context, account mail.Path, name string, text []byte) (warnings string, err error)
	// Check is Put without storing anything and without quota.
	Check(ctx context.Context, account mail.Path, text []byte) (warnings string, err error)
	// Activate makes it the script that runs, and no other; "": none does.
	Activate(ctx context.Context, account mail.Path, name string) error
	Delete(ctx context.Context, account mail.Path, name string) error
	Rename(ctx context.Context, account mail.Path, name, to string) error
}

// Script is one of an account's scripts.
type Script struct {
	Name   string
	Active bool
}

// Refusal is why something cannot be done.
type Refusal struct {
	// Code is the response code (RFC 5804 §1.3), "" for none.
	Code string
	// Text is for people; several lines are separated by LF.
	Text string
}

// Error is the text.
func (r *Refusal) Error() string { return r.Text }

// The response codes of refusals.
const (
	CodeActive        = "ACTIVE"
	CodeAlreadyExists = "ALREADYEXISTS"
	CodeNonexistent   = "NONEXISTENT"
	CodeQuota         = "QUOTA"
	CodeMaxScripts    = "QUOTA/MAXSCRIPTS"
	CodeMaxSize       = "QUOTA/MAXSIZE"
	CodeTryLater      = "TRYLATER"
)

// Logins is who may log in.
type Logins interface {
	// Mechanisms are the SASL mechanisms that Login takes.
	Mechanisms(ctx context.Context) ([]string, error)
	// Login begins an exchange with one of them.
	Login(ctx context.Context, mechanism string, c mail.Client) (Exchange, error)
	// Enabled says whether the account that has logged in still could: it is asked before each
	// command about scripts.
	Enabled(ctx context.Context, account mail.Path) (bool, error)
}

// Exchange is a SASL exchange. An error that is a [mail.Status] is the answer to the client;
// after any error the exchange is over.
type Exchange interface {
	// Next takes the client's response, nil if there is no initial one.
	Next(response []byte) (challenge []byte, done bool, err error)
	// Account is who has logged in, once it is done.
	Account() mail.Path
	Close()
}

// Options of a Server.
type Options struct {
	Scripts Scripts
	Logins  Logins
	// TLS is asked for each client, before it is greeted.
	TLS func(ctx context.Context) (*tls.Config, error)
	// Implementation is the name of the server, with a version.
	Implementation string
	// Extensions are what scripts may require, Notify the kinds of URI that notifications go to.
	Extensions []string
	Notify     []string
	// Redirects is how many redirects a script may do.
	Redirects int
	// MaxScript is the longest script that is taken, in bytes. Default: 1 MiB.
	MaxScript int
	// MaxConnections is how many there are at a time (for more, the oldest one without a
	// log-in has to go), MaxPerClient of one address (IPv6: of one /64). Defaults: 256 and 32.
	MaxConnections int
	MaxPerClient   int
	Timeouts       Timeouts
	Log            *slog.Logger
}

// Timeouts are how long the server waits. Zero values stand for the defaults.
type Timeouts struct {
	// Login is how long a client may take until it has logged in. Default: 5 minutes.
	Login time.Duration
	// Idle is for the next command of a client that has. RFC 5804 §1.2 wants 30 minutes at
	// least, which is the default.
	Idle time.Duration
	// Session is how long a log-in counts: who had the password before it was changed comes no
	// further. Default: 1 hour.
	Session time.Duration
	// Command is for all of a command, once it has begun. Default: 5 minutes.
	Command time.Duration
	// Response is for the answer to a challenge. Default: 30 seconds.
	Response time.Duration
	// Write is for the client to take an answer. Default: 1 minute.
	Write time.Duration
	// Handshake is for that of TLS. Default: 30 seconds.
	Handshake time.Duration
	// Work is for [Scripts]. Default: 20 seconds.
	Work time.Duration
	// Stop is for commands under way when the server ends. Default: 20 seconds.
	Stop time.Duration
}

func (o Options) withDefaults() Options {
	number := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	number(&o.MaxScript, 1<<20)
	number(&o.MaxConnections, 256)
	number(&o.MaxPerClient, 32)
	t := &o.Timeouts
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&t.Login, 5 * time.Minute}, {&t.Idle, 30 * time.Minute}, {&t.Session, time.Hour}, {&t.Command, 5 * time.Minute}, {&t.Response, 30 * time.Second}, {&t.Write, time.Minute},
		{&t.Handshake, 30 * time.Second}, {&t.Work, 20 * time.Second}, {&t.Stop, 20 * time.Second}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o *Options) check() error {
	switch {
	case o.Scripts == nil || o.Logins == nil || o.TLS == nil:
		return errors.New("managesieve: Scripts, Logins or TLS is missing")
	case o.MaxScript < 0 || o.MaxConnections < 0 || o.MaxPerClient < 0 || o.Redirects < 0:
		return errors.New("managesieve: a limit is negative")
	}
	return nil
}
