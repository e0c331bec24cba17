package main

import (
	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
)

func checkCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and everything it names, without touching a running gateway",
		Long: "Check the configuration and everything it names, without touching a running gateway:\n" +
			"the file, the data directory, certificates, next hops, every plugin's start and settings,\n" +
			"their order, and that strangers cannot relay.",
		Example: "  postern check --config config.example.toml",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load(*file)
			if err != nil {
				return err
			}
			return gateway.Check(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
}
