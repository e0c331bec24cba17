package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

const (
	// warnedFile says that the owner of a mailbox was told that it is nearly full. It goes
	// when that is over.
	warnedFile = "postern-quota-warned"
	warnTime   = 10 * time.Second
)

// warn tells the owner when a message has made the mailbox nearly full: once, until it
// has more room again.
func (t *taking) warn(ctx context.Context, to mail.Path) {
	p := t.p
	if !t.limited || p.settings.QuotaWarning == 0 {
		return
	}
	marker := filepath.Join(t.root, warnedFile)
	_, err := os.Lstat(marker)
	warned, percent := err == nil, fill(t.used, t.limit)
	if percent < p.settings.QuotaWarning {
		if warned {
			p.disk.Remove(marker)
		}
		return
	}
	if warned || !errors.Is(err, fs.ErrNotExist) || p.gateway == nil {
		return
	}
	m := p.meters.enter(t.root)
	defer p.meters.leave(m)
	m.mu.Lock()
	mine := !m.warning
	m.warning = true
	m.mu.Unlock()
	if !mine {
		return // another delivery does it
	}
	defer func() {
		m.mu.Lock()
		m.warning = false
		m.mu.Unlock()
	}()
	// The marker comes second: rather two warnings than none.
	if err := p.sendWarning(ctx, to, percent, t.used, t.limit); err != nil {
		slog.Warn("nobody is told that a mailbox is nearly full", "to", to.String(), "error", err.Error())
		return
	}
	if f, err := p.disk.Create(marker); err == nil {
		f.Close()
	}
}

// fill is how full a mailbox is, in percent of the limit that is nearer.
func fill(used, limit amount) (percent int64) {
	if limit.bytes > 0 {
		percent = int64(float64(used.bytes) / float64(limit.bytes) * 100)
	}
	if limit.messages > 0 {
		percent = max(percent, int64(float64(used.messages)/float64(limit.messages)*100))
	}
	return percent
}

func (p *Plugin) sendWarning(ctx context.Context, to mail.Path, percent int64, used, limit amount) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), warnTime)
	defer cancel()
	h := mail.NewHeader(nil)
	for _, f := range [][2]string{
		{"From", "Mail system <" + p.postmaster + ">"},
		{"To", "<" + to.String() + ">"},
		{"Subject", fmt.Sprintf("Your mailbox is %d%% full", percent)},
		{"Auto-Submitted", "auto-generated"},
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
	} {
		if err := h.Append(f[0], f[1]); err != nil {
			return err
		}
	}
	var holds []string
	if limit.bytes > 0 {
		holds = append(holds, fmt.Sprintf("%s of %s", human(used.bytes), human(limit.bytes)))
	}
	if limit.messages > 0 {
		holds = append(holds, fmt.Sprintf("%d of %d messages", used.messages, limit.messages))
	}
	text := fmt.Sprintf("The mailbox %s holds %s.\r\n\r\nWhen it is full, mail to you is turned away for the time being and, if there is\r\n"+
		"no room within days, returned to its senders. Please delete what you do not need,\r\nalso in the trash, or ask %s for more room.\r\n", to, strings.Join(holds, ", and "), p.postmaster)
	_, err := p.gateway.Submit(ctx, sdk.Submission{Origin: mail.Internal, Recipients: []mail.Path{to}, Header: h, Body: strings.NewReader(text)})
	return err
}

// human is a size for people.
func human(n int64) string {
	v := float64(n)
	for _, unit := range []string{"bytes", "KiB", "MiB", "GiB"} {
		if v < 1024 {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + unit
		}
		v /= 1024
	}
	return fmt.Sprintf("%.1f TiB", v)
}
