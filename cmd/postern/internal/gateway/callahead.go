package gateway

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/core/callahead"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/sdk/mail"
)

// This file is about domains whose recipients a server behind us knows.

func recipientsFile(c *config.Config) string { return filepath.Join(c.DataDir, "recipients.db") }

// callaheadDomains are the names of the domains whose server is asked.
func callaheadDomains(c *config.Config) []mail.Domain {
	var out []mail.Domain
	for _, d := range c.Domains {
		if d.Recipients == "callahead" {
			out = append(out, d.Name)
		}
	}
	return out
}

// callaheadRules are the rules for them, over a table that has all of them.
func callaheadRules(c *config.Config, table *route.Table) callahead.Rules {
	o := c.Callahead
	r := callahead.Rules{Domains: make(map[mail.Domain]route.Route), Keep: time.Duration(o.Keep), Refresh: time.Duration(o.Refresh), KeepUnknown: time.Duration(o.KeepUnknown),
		Timeout: time.Duration(o.Timeout), Concurrency: o.Concurrency, UnknownPerHour: o.UnknownPerHour}
	for _, name := range callaheadDomains(c) {
		if to, err := table.Route(mail.Path{Local: "postmaster", Domain: name}); err == nil {
			r.Domains[name] = to
		}
	}
	return r
}

// behind is what is known of recipients of servers behind us, and the way mail goes to them.
type behind struct {
	*callahead.Knowledge
	client *currentClient
}

func newBehind(c *config.Config, client *currentClient, log *slog.Logger, clock func() time.Time) (*behind, error) {
	k, err := callahead.Open(callahead.Options{Path: recipientsFile(c), Asker: client, Log: log, Clock: clock})
	return &behind{k, client}, err
}

// Attempt makes one attempt to deliver, and learns from what comes of it.
func (b *behind) Attempt(ctx context.Context, job *smtpclient.Job) []smtpclient.Result {
	results := b.client.Attempt(ctx, job)
	for i, r := range results {
		b.Learn(job.Envelope.Recipients[job.Recipients[i]].Path, r.Status)
	}
	return results
}

// Ask asks with the client of now.
func (c *currentClient) Ask(ctx context.Context, r route.Route, rcpts ...mail.Path) []mail.Status {
	return c.Load().Ask(ctx, r, rcpts...)
}
