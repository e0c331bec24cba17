package child

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/postern-mail/postern/core/pluginhost/pluginlog"
)

// StartError says what the admin can do about a process that did not shake hands within wait,
// or before ctx ended. The error is that of go-plugin.
func (p *Process) StartError(ctx context.Context, err error, wait time.Duration) error {
	var pe *fs.PathError
	var errno syscall.Errno
	switch {
	case strings.HasPrefix(err.Error(), "files."):
		return fmt.Errorf("cannot be started: %w; what files in its [[plugin]] table names has to be there", err)
	case errors.As(err, &pe) || errors.As(err, &errno):
		return fmt.Errorf("cannot be started: %w; check the command in its [[plugin]] table", err)
	case p.Pid() == 0:
		return fmt.Errorf("cannot be started: %w", err)
	}
	p.mu.Lock()
	noise, ended := p.noise, p.reaped
	p.mu.Unlock()
	what := ""
	switch {
	case ctx.Err() != nil || strings.Contains(err.Error(), "timeout"):
		what = fmt.Sprintf("did not print its handshake within %s", wait)
	case ended:
		<-p.exited
		what = "ended before the handshake (" + p.How() + ")"
	default:
		what = "did not shake hands: " + pluginlog.Printable(strings.SplitN(err.Error(), "\n", 2)[0])
	}
	if noise != "" {
		what += fmt.Sprintf("; it printed %q to standard output", noise)
	}
	if last := lastLine(p.Err.Last()); last != "" {
		what += fmt.Sprintf("; its last words: %q", last)
	}
	return errors.New(what + "; is it a plugin for this gateway?")
}

// lastLine is the last line that speaks of an error, for the last one of a stack trace says
// nothing; else the last line.
func lastLine(s string) string {
	lines := strings.Split(s, "\n")
	last := lines[len(lines)-1]
	for _, l := range slices.Backward(lines) {
		if strings.Contains(l, "Error: ") || strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") {
			last = strings.TrimSpace(l)
			break
		}
	}
	return pluginlog.Printable(last[:min(len(last), 300)])
}
