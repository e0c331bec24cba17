package maildir

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/postern-mail/postern/plugins/internal/once"
	"github.com/postern-mail/postern/sdk"
)

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{Name: "maildir", Version: "1.1", Needs: sdk.NeedBody, Host: sdk.MayLookup | sdk.MaySubmit}
}

// Plugin stores messages. It implements [sdk.Mailbox], [sdk.Room], [sdk.Folders], and [sdk.Service]
// for what it does by the clock.
type Plugin struct {
	settings   Settings
	tree       tree
	hostname   string
	machine    string // this computer's name, as other programs' locks have it
	postmaster string
	gateway    *sdk.Host
	disk       disk
	now        func() time.Time
	patience   time.Duration // with locks of others
	buffers    sync.Pool     // of *[]byte
	boxes      boxes
	keys       *once.Keys
	meters     meters
	limits     limits
}

var (
	_ sdk.Mailbox    = (*Plugin)(nil)
	_ sdk.Room       = (*Plugin)(nil)
	_ sdk.Folders    = (*Plugin)(nil)
	_ sdk.Service    = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin {
	return &Plugin{disk: osDisk{}, now: time.Now, patience: lockWait, boxes: newBoxes(), keys: once.New(maxStored), meters: newMeters(), limits: newLimits()}
}

// Configure checks the settings.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	err := c.Decode(&s)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return err
	}
	if p.tree, err = newTree(s.Path, c.DataDir); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	p.settings = s
	p.hostname, p.postmaster, p.gateway = safe(c.Hostname), c.Postmaster, c.Host
	if p.machine, err = os.Hostname(); err != nil {
		p.machine = c.Hostname
	}
	return nil
}

// Listeners returns none: the Service has a clock only.
func (p *Plugin) Listeners(context.Context) ([]string, error) { return nil, nil }

// Serve removes what is too old, once at the beginning and then once a day.
func (p *Plugin) Serve(ctx context.Context, _ []net.Listener) error {
	day := time.NewTicker(24 * time.Hour)
	defer day.Stop()
	for {
		p.expire(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-day.C:
		}
	}
}
