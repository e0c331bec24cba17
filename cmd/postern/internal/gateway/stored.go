package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
)

// Domains that are stored in the directory stand beside those of the configuration: the
// gateway works with both together.

// withDomains returns c with stored domains.
func withDomains(c *config.Config, stored []directory.Domain) (*config.Config, error) {
	all, err := c.WithDomains(configured(stored))
	if err != nil {
		return nil, fmt.Errorf("with the domains that are stored in the directory (see \"postern domain list\"): %w", err)
	}
	return all, nil
}

// configured writes stored domains as the configuration has them.
func configured(stored []directory.Domain) []config.Domain {
	var out []config.Domain
	for _, d := range stored {
		out = append(out, config.Domain{Name: d.Name, Aliases: d.Aliases, Deliver: d.Deliver, Recipients: d.Recipients, Directory: d.Directory,
			Planner: d.Planner, Postmaster: d.Postmaster, CatchAll: d.CatchAll, Quota: config.Size(d.Quota.Bytes), QuotaMessages: int(d.Quota.Messages)})
	}
	return out
}

// Declared are all domains as the directory has them.
func Declared(c *config.Config) []directory.Domain {
	var out []directory.Domain
	for _, d := range c.Domains {
		out = append(out, directory.Domain{Name: d.Name, Aliases: d.Aliases, Deliver: d.Deliver, Recipients: d.Recipients, Directory: d.Directory,
			Planner: d.Planner, Elsewhere: d.Directory != "", Stored: d.Stored, Postmaster: d.Postmaster, CatchAll: d.CatchAll,
			Quota: directory.Quota{Bytes: int64(d.Quota), Messages: int64(d.QuotaMessages)}})
	}
	return out
}

// CopyDirectory copies the directory, perhaps that of a gateway that runs, into another data
// directory. Without one nobody is in it.
func CopyDirectory(ctx context.Context, c *config.Config, dataDir string) error {
	to := *c
	to.DataDir = dataDir
	err := directory.Copy(ctx, directoryFile(c), directoryFile(&to))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// ReadStored is withDomains for commands that only look: the file is read as it is, perhaps
// under a running gateway, and nothing is changed.
func ReadStored(ctx context.Context, c *config.Config) (*config.Config, error) {
	dir, err := os.MkdirTemp("", "postern-directory")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "directory.db")
	if err := directory.Copy(ctx, directoryFile(c), path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return c, nil
		}
		return nil, err
	}
	d, err := directory.Open(directory.Options{Path: path, Hostname: c.Hostname, Postmaster: c.Postmaster})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	stored, err := d.Domains(ctx)
	if err != nil {
		return nil, err
	}
	return withDomains(c, stored)
}

// storedEvery is how soon a gateway notices that a domain was added, changed or removed.
const storedEvery = 100 * time.Millisecond

// checkStoredDomains says whether a gateway could work with the domains that are stored.
func checkStoredDomains(ctx context.Context, c *config.Config) error {
	if err := BecomeOwner(c.DataDir); err != nil {
		return err
	}
	all, err := ReadStored(ctx, c)
	if err != nil {
		return err
	}
	return deliverable(all)
}

// CheckDomains says whether a gateway could work with these stored domains.
func CheckDomains(c *config.Config, stored []directory.Domain) error {
	all, err := c.WithDomains(configured(stored))
	if err != nil {
		return err
	}
	return deliverable(all)
}

// deliverable says whether every domain's mail has somewhere to go.
func deliverable(c *config.Config) error {
	if _, err := PluginSpecs(c); err != nil {
		return err
	}
	_, err := routes(c, nil)
	return err
}

// followDomains puts changes of the stored domains in force, until ctx ends.
func (g *Gateway) followDomains(ctx context.Context) {
	tick := time.NewTicker(storedEvery)
	defer tick.Stop()
	var failed []directory.Domain
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		stored, err := g.directory.Domains(ctx)
		if err != nil || reflect.DeepEqual(stored, *g.stored.Load()) || failed != nil && reflect.DeepEqual(stored, failed) {
			continue // whoever needs an answer of the directory says that it has none
		}
		if err := g.Reload(ctx, g.file.Load()); err == nil {
			g.log.Info("domains of the directory are in force", "domains", len(stored))
		} else if ctx.Err() == nil {
			failed = stored
			g.log.Error("the domains of the directory have changed, and cannot be put in force", "error", err)
		}
	}
}
