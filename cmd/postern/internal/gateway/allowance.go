package gateway

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/digest"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/sdk/mail"
)

// allowance returns the function that says which recipients of a message want the mail of its
// sender, whatever it looks like (postern quarantine allow-sender). Of mail from outside only
// that counts for which the plugin mailauth, where it runs, has found that the domain of the
// reverse-path stands behind it: what anybody can claim must not open the door.
func allowance(c *config.Config, d *directory.Directory, log *slog.Logger) func(context.Context, *mail.Message) []int {
	var notes []string
	for _, p := range c.Plugins {
		if len(p.Command) == 0 && (p.Use == "mailauth" || p.Use == "" && p.Name == "mailauth") {
			notes = append(notes, p.Name+"/authenticated")
		}
	}
	return func(ctx context.Context, m *mail.Message) (allowed []int) {
		outside := m.Envelope.Origin == mail.Incoming || m.Envelope.Origin == mail.Fetched
		if outside && len(notes) > 0 && !slices.ContainsFunc(notes, func(n string) bool { return m.Notes[n] != "" }) {
			return nil
		}
		wants, err := d.WhoAllows(ctx, m.Envelope.ReversePath)
		if err != nil {
			log.Error("directory failed", "question", "allowed senders", "error", err)
		}
		if err != nil || wants == nil {
			return nil
		}
		for i, r := range m.Envelope.Recipients {
			if wants(ctx, r.Path) || !r.Original.IsZero() && wants(ctx, r.Original) {
				allowed = append(allowed, i)
			}
		}
		return allowed
	}
}

// newDigest makes the part that tells recipients what is held for them.
func (g *Gateway) newDigest(c *config.Config) *digest.Digest {
	return digest.New(digest.Options{Hostname: c.Hostname.String(), Postmaster: c.Postmaster, Quarantine: g.steered(c), Intake: g.intake, Store: g.store, Times: g.directory,
		Trace: g.trace, Log: g.log, Clock: time.Now}, digestRules(c, g.directory))
}

func digestRules(c *config.Config, d *directory.Directory) digest.Rules {
	hour, minute, second, _ := c.Quarantine.Clock() // validated
	return digest.Rules{Daily: c.Quarantine.Digest == "daily", Hour: hour, Minute: minute, Second: second, Wants: func(ctx context.Context, domain mail.Domain) bool {
		name, ours, err := d.Local(ctx, domain)
		listed := c.Quarantine.DigestDomains
		return err == nil && ours && (len(listed) == 0 || slices.Contains(listed, name) || slices.Contains(listed, domain))
	}}
}
