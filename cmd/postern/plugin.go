package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/builtin"
	"github.com/postern-mail/postern/core/pluginhost/child"
	"github.com/postern-mail/postern/sdk"
)

// pluginCommand has what admins run, what authors of plugins run, and what the gateway runs
// itself.
func pluginCommand(file *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Look at plugins and steer them, write and test them",
		Args:  func(_ *cobra.Command, a []string) error { return unknownCommand(a) },
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(pluginSteerCommands(file)...)
	cmd.AddCommand(pluginNewCommand(), pluginTestCommand())
	cmd.AddCommand(&cobra.Command{
		Use:    "serve NAME",
		Hidden: true,
		Short:  "Run a built-in plugin; the gateway does this",
		Args:   args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			b, ok := builtin.Plugins[a[0]]
			if !ok {
				return fmt.Errorf("there is no built-in plugin %q: the built-in ones are %s", a[0], builtin.Names())
			}
			sdk.Serve(b.Make(), b.Manifest)
			return nil
		},
	}, &cobra.Command{
		Use:    "guard",
		Hidden: true,
		Short:  "End plugins when the gateway has died; the gateway does this",
		Args:   args(cobra.NoArgs),
		RunE:   func(*cobra.Command, []string) error { return child.Guard(os.Stdin, os.Stdout) },
	})
	return cmd
}
