package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/core/config"
)

func serveCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: "Run the gateway.\n\n" +
			"SIGHUP reads the configuration again; a file with faults leaves everything as it is.\n" +
			"SIGTERM finishes what is in flight and stops, in half a minute at most.",
		Example: "  postern serve --config config.example.toml",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load(*file)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c)
		},
	}
}

// serve runs until ctx ends.
func serve(ctx context.Context, c *config.Config) error {
	log := newLog(c)
	signal.Ignore(syscall.SIGXFSZ) // a limit on the size of files is an error of the write (D-08)
	g, err := newGateway(ctx, c, log)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-hup:
				g.reload(ctx, c.File())
			case <-ctx.Done():
				return
			}
		}
	}()
	log.Info("ready", "version", version(), "hostname", c.Hostname.String(), "listeners", g.listening())
	g.Run(ctx)
	return nil
}

// reload reads the file again. What is wrong with it goes to the log, all of it.
func (g *gateway) reload(ctx context.Context, file string) {
	c, err := config.Load(file)
	if err == nil {
		err = g.Reload(ctx, c)
	}
	if err != nil {
		g.log.Error("configuration not reloaded, the old one stays in force", "file", file, "error", err)
		return
	}
	g.log.Info("configuration reloaded", "file", file, "listeners", g.listening())
}

// newLog is the log that a configuration asks for, on standard error.
func newLog(c *config.Config) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.Log.Level)) // validated
	return slog.New(logHandler(c, &slog.HandlerOptions{Level: level}))
}

// quietLog is for commands: only what is wrong.
func quietLog(c *config.Config) *slog.Logger {
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
		if s := a.Value.String(); strings.ContainsFunc(s, misleading) {
			a.Value = slog.StringValue(strings.Map(func(r rune) rune {
				if misleading(r) {
					return utf8.RuneError
				}
				return r
			}, s))
		}
	}
	return a
}

func misleading(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
