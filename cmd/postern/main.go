// Command postern is a mail gateway: it takes mail in over SMTP, decides about it with
// plugins that run as processes of their own, keeps it in a queue that survives a power
// cut, and hands it on.
//
// This package has the subcommands. Package gateway puts the parts together, package trial tries
// messages.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/core/config"
)

// Exit codes of every command.
const (
	exitFault = 1 // the answer is no, or something is wrong
	exitUsage = 2 // the command was not understood
)

// usageError marks an error as a misunderstanding.
type usageError struct{ error }

// unknownName is a subcommand that there is not.
type unknownName string

func (n unknownName) Error() string { return fmt.Sprintf("unknown command %q", string(n)) }

func main() {
	// Commands end on an interrupt; serve handles its signals itself.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd, err := root().ExecuteContextC(ctx)
	if err == nil {
		return
	}
	text, code := explained(cmd, err)
	fmt.Fprintln(os.Stderr, "postern:", text)
	os.Exit(code)
}

// explained is what a failed command says, and its exit code.
func explained(cmd *cobra.Command, err error) (string, int) {
	text := err.Error()
	var unknown unknownName
	var usage usageError
	switch {
	case errors.As(err, &unknown):
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(string(unknown)); len(near) > 0 {
			return fmt.Sprintf("%s; did you mean %q? See %s --help", text, near[0], cmd.CommandPath()), exitUsage
		}
		return text + "; see " + cmd.CommandPath() + " --help", exitUsage
	case errors.As(err, &usage):
		if strings.HasPrefix(text, "unknown flag") || strings.HasPrefix(text, "unknown shorthand flag") {
			text += "; see " + cmd.CommandPath() + " --help"
		}
		return text, exitUsage
	case strings.HasPrefix(text, "required flag"):
		return text + "\nusage: " + cmd.UseLine(), exitUsage
	case errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 && !strings.Contains(text, "root"):
		return text + "; run it as root, or as the user of the gateway", exitFault
	}
	return text, exitFault
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
	cmd.SetHelpCommand(helpCommand())
	cmd.CompletionOptions.HiddenDefaultCmd = true
	return cmd
}

// helpCommand is "help COMMAND", which is "COMMAND --help".
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show how a command is used",
		Example: "  postern help queue list",
		RunE: func(cmd *cobra.Command, a []string) error {
			about, rest, err := cmd.Root().Find(a)
			var unknown unknownName
			if errors.As(err, &unknown) {
				about, rest = cmd.Root(), a
			} else if err != nil {
				return err
			}
			if len(rest) > 0 {
				return usageError{fmt.Errorf("unknown command %q; see %s --help", rest[0], about.CommandPath())}
			}
			return about.Help()
		},
	}
}

func unknownCommand(args []string) error {
	if len(args) > 0 {
		return unknownName(args[0])
	}
	return nil
}

// defaultConfig is the file of a packaged installation.
func defaultConfig() string { return "/etc/postern/postern.toml" }

// args is a check of arguments whose error says what is wrong, and how the command is used.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if check(cmd, a) == nil {
			return nil
		}
		what := "an argument is missing"
		for n := range a {
			if check(cmd, a[:n]) == nil {
				what = fmt.Sprintf("there is no place for the argument %q", a[n])
			}
		}
		return usageError{fmt.Errorf("%s\nusage: %s", what, cmd.UseLine())}
	}
}

// load reads the configuration.
func load(file string) (*config.Config, error) {
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration file %s: name one with --config FILE", file)
	}
	return config.Load(file)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  postern version",
		Args:    args(cobra.NoArgs),
		Run:     func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "postern", gateway.Version()) },
	}
}
