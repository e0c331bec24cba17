package gateway

import (
	"log/slog"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/config"
)

// NewLog is the log that a configuration asks for, on standard error.
func NewLog(c *config.Config) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.Log.Level)) // validated
	return slog.New(logHandler(c, &slog.HandlerOptions{Level: level}))
}

// QuietLog is for commands: only what is wrong.
func QuietLog(c *config.Config) *slog.Logger {
	return slog.New(logHandler(c, &slog.HandlerOptions{Level: slog.LevelError}))
}

func logHandler(c *config.Config, o *slog.HandlerOptions) slog.Handler {
	if c.Log.Format == "json" {
		o.ReplaceAttr = withoutDirections // the text handler quotes them by itself
		return slog.NewJSONHandler(os.Stderr, o)
	}
	return slog.NewTextHandler(os.Stderr, o)
}

// withoutDirections replaces characters that turn the direction of writing or break lines: what
// strangers say must not make a log look like something else.
func withoutDirections(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindString {
		if s := a.Value.String(); strings.ContainsFunc(s, terminal.Misleading) {
			a.Value = slog.StringValue(strings.Map(func(r rune) rune {
				if terminal.Misleading(r) {
					return utf8.RuneError
				}
				return r
			}, s))
		}
	}
	return a
}
