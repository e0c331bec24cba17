// Command postern is a mail gateway: it takes mail in over SMTP, decides about it with
// plugins that run as processes of their own, keeps it in a queue that survives a power
// cut, and hands it on.
//
// This package only wires: it reads the configuration, builds the parts, starts them and
// waits; and it has the subcommands.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/core/config"
)

// Exit codes of every command.
const (
	exitFault = 1 // the answer is no, or something is wrong
	exitUsage = 2 // the command was not understood
)

// usageError marks an error as a misunderstanding.
type usageError struct{ error }

func main() {
	// Commands end on an interrupt; serve handles its signals itself.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "postern:", err)
	var usage usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command") {
		os.Exit(exitUsage)
	}
	os.Exit(exitFault)
}

func root() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:           "postern",
		Short:         "A mail gateway with plugins in processes of their own",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          func(_ *cobra.Command, args []string) error { return unknownCommand(args) },
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVarP(&file, "config", "c", defaultConfig(), "the configuration file")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddCommand(serveCommand(&file), checkCommand(&file), sendCommand(&file), tryCommand(&file), queueCommand(&file), quarantineCommand(&file),
		domainCommand(&file), accountCommand(&file), aliasCommand(&file), groupCommand(&file), rewriteCommand(&file), dkimCommand(&file), sieveCommand(&file), pluginCommand(&file), versionCommand())
	cmd.CompletionOptions.HiddenDefaultCmd = true
	return cmd
}

func unknownCommand(args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown command %q: see postern --help", args[0])}
	}
	return nil
}

// defaultConfig is the file of a packaged installation.
func defaultConfig() string { return "/etc/postern/postern.toml" }

// exactArgs is cobra.ExactArgs with an error that is a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usageError{fmt.Errorf("%w\nusage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// load reads the configuration.
func load(file string) (*config.Config, error) {
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration file %s: name one with --config FILE", file)
	}
	return config.Load(file)
}

// controlSocket is where the gateway of a configuration can be reached.
func controlSocket(c *config.Config) string { return filepath.Join(c.DataDir, "run", "control.sock") }

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  postern version",
		Args:    args(cobra.NoArgs),
		Run:     func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "postern", version()) },
	}
}

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v == "(devel)" {
			v = s.Value[:min(12, len(s.Value))]
		}
	}
	return v
}
