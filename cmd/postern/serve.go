package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
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
	log := gateway.NewLog(c)
	signal.Ignore(syscall.SIGXFSZ) // a limit on the size of files is an error of the write (D-08)
	g, err := gateway.New(ctx, c, log)
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
				reload(ctx, g, c.File(), log)
			case <-ctx.Done():
				return
			}
		}
	}()
	log.Info("ready", "version", gateway.Version(), "hostname", c.Hostname.String(), "listeners", g.Listening())
	g.Run(ctx)
	return nil
}

// reload reads the file again. What is wrong with it goes to the log, all of it.
func reload(ctx context.Context, g *gateway.Gateway, file string, log *slog.Logger) {
	c, err := config.Load(file)
	if err == nil {
		err = g.Reload(ctx, c)
	}
	if err != nil {
		log.Error("configuration not reloaded, the old one stays in force", "file", file, "error", err)
		return
	}
	log.Info("configuration reloaded", "file", file, "listeners", g.Listening())
}
