// Package trial sends messages through a gateway of their own, from the session to the door of
// the queue, and reports what each plugin made of them. Nothing is queued, sent or kept, and a
// gateway that runs is not disturbed.
package trial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/sdk"
)

// Trial is a gateway aside, and what it says of the message under way. One message at a time.
type Trial struct {
	config *config.Config
	dir    string
	log    *slog.Logger
	aside  *gateway.Aside

	mu     sync.Mutex
	report *Report         // of the message under way
	fallen map[string]bool // plugins that it has killed
}

// New starts the plugins.
func New(ctx context.Context, c *config.Config) (*Trial, error) {
	if err := gateway.BecomeOwner(c.DataDir); err != nil { // plugins run as they do in the gateway
		return nil, err
	}
	c, err := gateway.ReadStored(ctx, c)
	if err != nil {
		return nil, err
	}
	specs, err := gateway.PluginSpecs(c)
	if err != nil {
		return nil, err
	}
	t := &Trial{config: c, log: gateway.QuietLog(c)}
	if t.dir, err = os.MkdirTemp("", "postern-try"); err != nil {
		return nil, err
	}
	if err := t.open(ctx, specs); err != nil {
		os.RemoveAll(t.dir)
		return nil, err
	}
	return t, nil
}

func (t *Trial) open(ctx context.Context, specs []pluginhost.Spec) error {
	if err := os.Chmod(t.dir, 0o710); err != nil { // as a data directory is
		return err
	}
	if err := gateway.CopyDirectory(ctx, t.config, t.dir); err != nil {
		return err
	}
	if err := (&dataCopy{}).tree(t.config.DataDir, t.dir, 0); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if err := moveFiles(specs, t.config.DataDir, t.dir); err != nil {
		return err
	}
	var err error
	t.aside, err = gateway.OpenAside(ctx, gateway.AsideOptions{Config: t.config, DataDir: t.dir, Plugins: specs, Log: t.log, Filters: t,
		Gate: func(name string, g pipeline.Gate) pipeline.Gate { return witnessedGate{name, g, t} }})
	return err
}

// Close ends the plugins and removes what they kept.
func (t *Trial) Close() {
	t.aside.Close()
	os.RemoveAll(t.dir)
}

// revive starts plugins anew that died of the message before: each finds them as it would
// find them in a gateway that has run for long.
func (t *Trial) revive(ctx context.Context) {
	for _, s := range t.aside.Plugins().Status() {
		if s.State != "running" || t.fallen[s.Name] {
			if err := t.aside.Plugins().Restart(ctx, s.Name); err != nil {
				t.log.Warn("plugin stays down", "plugin", s.Name, "error", err)
			}
		}
	}
	t.fallen = nil
}

// fell notes a plugin that was down when it was asked, or has just died.
func (t *Trial) fell(plugin string, err error) {
	var r interface{ Reason() string }
	if !errors.As(err, &r) || r.Reason() != string(pipeline.Down) && r.Reason() != string(pipeline.Convicted) {
		return
	}
	if t.fallen == nil {
		t.fallen = make(map[string]bool)
	}
	t.fallen[plugin] = true
}

// Asked notes what a filter answered.
func (t *Trial) Asked(a pipeline.Answer) {
	t.note(func(r *Report) { r.filter(a); t.fell(a.Plugin, a.Err) })
}

// Ended notes what became of the message.
func (t *Trial) Ended(versions []pipeline.Version) {
	t.note(func(r *Report) { r.versions, r.ran = versions, true })
}

func (t *Trial) note(f func(*Report)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.report != nil { // else it comes too late
		f(t.report)
	}
}

// witnessedGate notes what a gate answered.
type witnessedGate struct {
	name  string
	gate  pipeline.Gate
	trial *Trial
}

// Gate asks the gate.
func (g witnessedGate) Gate(ctx context.Context, a *sdk.Attempt) (*sdk.Verdict, error) {
	begin := time.Now()
	v, err := g.gate.Gate(ctx, a)
	took := float64(time.Since(begin).Microseconds()) / 1000
	g.trial.note(func(r *Report) { r.gate(g.name, a, v, err, took); g.trial.fell(g.name, err) })
	return v, err
}
