package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/policy"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/core/smtpd"
	"github.com/postern-mail/postern/sdk/mail"
)

// door is the intake as sessions see it.
type door struct {
	intake *intake.Intake
	names  *currentNames
}

// Receive takes a message from a session.
func (d *door) Receive(ctx context.Context, e *mail.Envelope, r io.Reader) (smtpd.Receipt, error) {
	client := pipeline.SMTPClient
	if strings.Contains(e.Client.Protocol, "LMTP") {
		client = pipeline.LMTPClient
	}
	d.names.fill(ctx, &e.Client)
	receipt, err := d.intake.Receive(ctx, e, client, r)
	return smtpd.Receipt{ID: receipt.ID, Reply: receipt.Reply, PerRecipient: receipt.PerRecipient}, err
}

// currentPolicy is the policy as sessions see it: after a reload it is another one.
type currentPolicy struct{ atomic.Pointer[policy.Policy] }

// Connect asks the policy of now.
func (p *currentPolicy) Connect(ctx context.Context, c *mail.Client) mail.Status {
	return p.Load().Connect(ctx, c)
}

// Mail asks the policy of now.
func (p *currentPolicy) Mail(ctx context.Context, c *mail.Client, reverse mail.Path, size int64) mail.Status {
	return p.Load().Mail(ctx, c, reverse, size)
}

// Recipient asks the policy of now.
func (p *currentPolicy) Recipient(ctx context.Context, e *mail.Envelope, rcpt mail.Path) mail.Status {
	return p.Load().Recipient(ctx, e, rcpt)
}

// smtpLogins are log-ins as sessions see them.
type smtpLogins struct{ *auth.Authenticator }

// Exchange begins an exchange with a mechanism besides PLAIN and LOGIN.
func (l smtpLogins) Exchange(ctx context.Context, c *mail.Client, mechanism string) (smtpd.Exchange, error) {
	return l.Begin(ctx, c, mechanism)
}

// newAuthenticator checks log-ins with what the directories know.
func newAuthenticator(c *config.Config, own *directory.Directory, dirs *directories, log *slog.Logger) (*auth.Authenticator, error) {
	secret, err := own.Secret(context.Background(), "unknown accounts")
	if err != nil {
		return nil, err
	}
	return auth.New(auth.Options{Accounts: own, Passwords: dirs, PasswordsOnly: len(dirs.plugins) > 0, Secret: secret, DefaultDomain: c.Auth.DefaultDomain, Log: log,
		AppUsed: func(ctx context.Context, account, name string) {
			if err := own.AppPasswordUsed(ctx, account, name); err != nil {
				log.Error("the use of an app password is not noted", "account", account, "error", err)
			}
		}})
}

// currentClient is the SMTP client of now: a reload makes another.
type currentClient struct {
	atomic.Pointer[smtpclient.Client]
}

// Attempt makes one attempt to deliver.
func (c *currentClient) Attempt(ctx context.Context, job *smtpclient.Job) []smtpclient.Result {
	return c.Load().Attempt(ctx, job)
}

// Submit takes a message from the control socket. Whoever can open that may relay; all else
// is as for a client.
func (g *Gateway) Submit(ctx context.Context, from mail.Path, to []mail.Path, message io.Reader) (admin.Submission, error) {
	limit := int64(g.config.Load().Limits.MessageSize)
	text, err := io.ReadAll(io.LimitReader(message, limit+1))
	if err != nil {
		return admin.Submission{}, err
	}
	env := &mail.Envelope{Origin: mail.Submitted, ReversePath: from, BodyType: mail.Body8BitMIME, UTF8: !from.IsASCII(),
		Client: mail.Client{Helo: g.config.Load().Hostname.String(), Protocol: "local", Listener: "control", Class: mail.Relay}}
	refuse := func(s mail.Status) (admin.Submission, error) { return admin.Submission{Reply: s}, nil }
	if int64(len(text)) > limit {
		return refuse(mail.Permanent(552, 3, 4, "Message is too large"))
	}
	if !wireForm(text) {
		return refuse(mail.Permanent(554, 6, 0, "Message has a bare CR, bare LF or NUL"))
	}
	for _, t := range to {
		if s := g.policy.Recipient(ctx, env, t); !s.IsZero() && !s.Success() {
			s.Text = fmt.Sprintf("<%s>: %s", t, s.Text)
			return refuse(s)
		}
		env.UTF8 = env.UTF8 || !t.IsASCII()
		env.Recipients = append(env.Recipients, mail.Recipient{Path: t})
	}
	receipt, err := g.intake.Receive(ctx, env, pipeline.SMTPClient, bytes.NewReader(text))
	if err != nil {
		return refuse(mail.StatusOf(err))
	}
	return admin.Submission{ID: receipt.ID, Reply: receipt.Reply}, nil
}

// wireForm reports whether text has CRLF line ends only, and no NUL.
func wireForm(text []byte) bool {
	n := bytes.Count(text, []byte("\r\n"))
	return bytes.Count(text, []byte("\r")) == n && bytes.Count(text, []byte("\n")) == n && bytes.IndexByte(text, 0) < 0
}

// CRLF gives a message from a file the line ends of the wire.
func CRLF(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}
