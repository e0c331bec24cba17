package gateway

import (
	"context"

	"github.com/postern-mail/postern/core/admin"
)

var _ admin.Plugins = (*Gateway)(nil)

// Plugins is what the gateway says of its plugins.
func (g *Gateway) Plugins() []admin.PluginStatus {
	var list []admin.PluginStatus
	c := g.config.Load()
	for _, s := range g.host.Status() {
		p := admin.PluginStatus{Name: s.Name, State: s.State, Reason: s.Reason, Pid: s.Pid, Version: s.Version, Restarts: s.Restarts,
			Calls: s.Calls, Failures: s.Failures, Since: s.Since.UTC(), Breaker: s.Breaker, Owns: s.Owns, Counters: s.Counters}
		n := g.tally.Of(s.Name)
		p.Verdicts, p.NoVerdict, p.NoAnswer = admin.Verdicts(n.Verdicts), admin.Choices(n.NoVerdict), admin.Choices(n.NoAnswer)
		if _, filter := g.host.Filter(s.Name); filter {
			for _, configured := range c.Plugins {
				if configured.Name == s.Name {
					p.OnFailure = describeFailure(configured.OnFailure)
				}
			}
		}
		list = append(list, p)
	}
	return list
}

// SteerPlugin does what an admin wants done to a plugin.
func (g *Gateway) SteerPlugin(ctx context.Context, name string, change admin.PluginChange) error {
	switch change {
	case admin.RestartPlugin:
		return g.host.Restart(ctx, name)
	case admin.DisablePlugin:
		return g.host.Disable(name)
	}
	return g.host.Enable(ctx, name)
}
