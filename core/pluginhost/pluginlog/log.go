// Package pluginlog is what plugins say, in the gateway's log: what they print, and the lines
// that they ask the gateway to log.
//
// It promises that a process logs no more than its share, however much it says, that a line is
// at most 4 KiB and has nothing unprintable in it, and that a plugin can neither say what only
// the gateway says nor be kept waiting. Lines of its output that were left out are counted, and
// the count logged; the last 8 KiB of it are kept, for the report of a death.
//
// It knows nothing of processes and calls. All methods are safe for concurrent use.
package pluginlog

import (
	"context"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

const (
	maxLine   = 4 << 10 // bytes of one line that are logged
	maxName   = 64      // bytes of a field's name
	tailSize  = 8 << 10 // bytes of the last output that are kept
	lineRate  = 20      // lines a second that are logged, in the long run
	lineBurst = 200     // and at once
)

// A Log takes all that one process of a plugin says: together it has one share.
type Log struct {
	out   *slog.Logger
	limit *rate.Limiter
	now   func() time.Time
}

// New returns the log of a process of that plugin.
func New(log *slog.Logger, plugin string, now func() time.Time) *Log {
	return &Log{out: log.With("plugin", plugin), limit: rate.NewLimiter(lineRate, lineBurst), now: now}
}

// Stream returns what takes one of the process's streams: "stdout" or "stderr".
func (l *Log) Stream(name string) *Stream { return &Stream{log: l, name: name} }

// Error logs what went wrong because the plugin said something, out of its share: it could say
// it for ever.
func (l *Log) Error(msg string, args ...any) {
	if l.room() {
		l.out.Error(msg, args...)
	}
}

// Say logs a line that the plugin asks for, as an error at most. The fields are a group of their
// own: a plugin cannot say what only the gateway says.
func (l *Log) Say(ctx context.Context, level slog.Level, text string, fields map[string]string) {
	if !l.room() {
		return
	}
	args := make([]any, 0, len(fields))
	for k, v := range fields {
		args = append(args, slog.String(Printable(k[:min(len(k), maxName)]), Printable(v[:min(len(v), maxLine)])))
	}
	level = max(slog.LevelDebug, min(level, slog.LevelError))
	l.out.Log(ctx, level, "plugin says", "text", Printable(text), slog.Group("fields", args...))
}

// room takes one line out of the share.
func (l *Log) room() bool { return l.limit.AllowN(l.now(), 1) }

// Printable takes the control characters out of text that is to be logged or shown.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r != ' ' && r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
