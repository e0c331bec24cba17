package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/plugins/sieve/engine"
)

// sieveCommand has what one does with Sieve scripts.
func sieveCommand(file *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sieve",
		Short: "Check and try Sieve scripts, and manage those of accounts",
		Args:  func(_ *cobra.Command, a []string) error { return unknownCommand(a) },
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sieveCheckCommand(), sieveRunCommand(), sievePutCommand(file), sieveListCommand(file), sieveGetCommand(file),
		sieveActivateCommand(file), sieveDeactivateCommand(file), sieveDeleteCommand(file))
	return cmd
}

func sieveCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE...",
		Short:   "Say what is wrong with scripts",
		Long:    "Say what is wrong with scripts, each fault with its line. Exit code 0: nothing; 1: something; 2: wrong usage.",
		Example: "  postern sieve check ~/filter.sieve",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			bad := 0
			for _, name := range files {
				src, err := os.ReadFile(name)
				if err != nil {
					return usageError{err}
				}
				_, faults := engine.Check(src, engine.Options{})
				for _, f := range faults {
					fmt.Fprintf(cmd.OutOrStdout(), "%s:%d: %s\n", name, f.Line, f.Message)
				}
				if len(faults) > 0 {
					bad++
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d scripts have faults", bad, len(files))
			}
			return nil
		},
	}
}
