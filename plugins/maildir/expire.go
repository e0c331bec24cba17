package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// expire removes from the folders for trash and junk what has been there for too long. It
// touches no other folder.
func (p *Plugin) expire(ctx context.Context) {
	removed := 0
	p.tree.walk(ctx, func(root string, address mail.Path) {
		removed += p.expireMailbox(ctx, root, address)
	})
	if removed > 0 {
		slog.Info("old messages removed from trash and junk", "messages", removed)
	}
}

func (p *Plugin) expireMailbox(ctx context.Context, root string, address mail.Path) (removed int) {
	var own map[string]string // what the account has set
	asked := false
	for _, kind := range []struct {
		folders []string
		days    int
		key     string
	}{{p.settings.Trash, p.settings.TrashDays, "trash_expiry"}, {p.settings.Junk, p.settings.JunkDays, "junk_expiry"}} {
		for _, name := range kind.folders {
			folder, _ := p.settings.folder(name)
			if fi, err := os.Lstat(filepath.Join(root, folder)); err != nil || !fi.IsDir() {
				continue
			}
			if !asked {
				var err error
				if own, err = p.ownSettings(ctx, address); err != nil {
					slog.Warn("nothing is removed from this mailbox: no answer about its owner", "to", address.String(), "error", err.Error())
					return removed
				}
				asked = true
			}
			days := kind.days
			if v, ok := own[kind.key]; ok {
				if days, ok = parseDays(v); !ok {
					slog.Warn("setting of an account is no number of days", "to", address.String(), "key", kind.key)
					continue
				}
			}
			if days > 0 {
				removed += p.expireFolder(ctx, root, folder, time.Duration(days)*24*time.Hour)
			}
		}
	}
	return removed
}

// CheckSetting looks at something that is to be set for an account; known: the plugin reads it.
func CheckSetting(key, value string) (known bool, err error) {
	if key != "trash_expiry" && key != "junk_expiry" {
		return false, nil
	}
	if _, ok := parseDays(value); !ok {
		return true, fmt.Errorf("%s is a number of days (30d) or never, not %q", key, value)
	}
	return true, nil
}

// parseDays reads "30d", "30" or "never".
func parseDays(v string) (int, bool) {
	if v == "never" {
		return 0, true
	}
	n, err := strconv.Atoi(strings.TrimSuffix(v, "d"))
	return n, err == nil && n >= 0 && n < 100_000
}

// ownSettings are those of an account; none for who has none.
func (p *Plugin) ownSettings(ctx context.Context, address mail.Path) (map[string]string, error) {
	if p.gateway == nil || address.IsZero() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, limitTime)
	defer cancel()
	account, err := p.gateway.Lookup(ctx, address)
	if err != nil || account.Info == nil {
		return nil, err
	}
	return account.Info.Settings, nil
}

// expireFolder removes the messages that came into a folder longer than age ago. It does not
// leave the mailbox, whatever symbolic links are there.
func (p *Plugin) expireFolder(ctx context.Context, root, folder string, age time.Duration) (removed int) {
	mailbox, err := os.OpenRoot(root)
	if err != nil {
		return 0
	}
	defer mailbox.Close()
	var gone amount
	for _, sub := range []string{"new", "cur"} {
		dir := filepath.Join(folder, sub)
		if fi, err := mailbox.Lstat(dir); err != nil || !fi.IsDir() {
			continue
		}
		d, err := mailbox.Open(dir)
		if err != nil {
			continue
		}
		names, err := d.Readdirnames(-1)
		d.Close()
		if err != nil {
			continue
		}
		for _, name := range names {
			if ctx.Err() != nil {
				break
			}
			path := filepath.Join(dir, name)
			fi, err := mailbox.Lstat(path)
			if err != nil || !fi.Mode().IsRegular() || p.now().Sub(arrived(fi)) <= age {
				continue
			}
			size, ok := sizeOf(filepath.Join(root, dir), name)
			if err := mailbox.Remove(path); err != nil {
				if !errors.Is(err, fs.ErrNotExist) {
					slog.Warn("old message cannot be removed", "file", filepath.Join(root, path), "error", err.Error())
				}
				continue
			}
			removed++
			if ok {
				gone = gone.plus(amount{-size, -1})
			}
		}
	}
	if gone != (amount{}) {
		p.note(root, gone)
	}
	return removed
}
