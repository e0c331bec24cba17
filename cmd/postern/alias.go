package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/sdk/mail"
)

func aliasCommand(file *string) *cobra.Command {
	return branch("alias", "Aliases: addresses that stand for others",
		"Aliases: addresses that stand for others, here or elsewhere. @DOMAIN is the catch-all of a domain: it gets what is for addresses that do not exist.\n\n"+
			"An alias that names its own address too keeps a copy in the account there. An alias cannot log in."+inForce,
		aliasAdd(file), aliasRemove(file), aliasList(file),
		importCommand(file, "aliases", "Add aliases from a CSV file", "  printf 'address,targets\\ninfo@example.org,alice@example.org bob@example.com\\n' | postern alias import -",
			[]string{"address", "targets"}, nil, aliasItem, nil))
}

func aliasAdd(file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "add ADDRESS TARGET...",
		Short:   "Let an address stand for others, in addition to those it has",
		Example: "  postern alias add info@example.org alice@example.org bob@elsewhere.example\n  postern alias add @example.org alice@example.org",
		Args:    args(cobra.MinimumNArgs(2)),
		RunE: inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, a []string) error {
			p, targets, err := aliasArgs(a)
			if err != nil {
				return err
			}
			if err := d.AddAlias(cmd.Context(), p, targets...); err != nil {
				return err
			}
			return say(cmd, "%s -> %s added", patternText(p), joined(targets))
		}),
	}
}

func aliasArgs(a []string) (p mail.Path, targets []mail.Path, err error) {
	p, err = pattern(a[0])
	if err == nil {
		targets, err = addresses(a[1:])
	}
	return p, targets, err
}

func aliasRemove(file *string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "remove ADDRESS [TARGET...]",
		Short:   "Remove targets of an alias, or with --all the alias",
		Example: "  postern alias remove info@example.org bob@elsewhere.example\n  postern alias remove info@example.org --all",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, a []string) error {
			p, targets, err := aliasArgs(a)
			if err != nil {
				return err
			}
			if all == (len(targets) > 0) {
				return usageError{errors.New("give the targets to remove, or --all")}
			}
			if err := d.RemoveAlias(cmd.Context(), p, targets...); err != nil {
				return err
			}
			return say(cmd, "%s removed", patternText(p))
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "all targets: the whole alias")
	return cmd
}

func aliasList(file *string) *cobra.Command {
	var asJSON bool
	return jsonFlag(&cobra.Command{
		Use:     "list",
		Short:   "List the aliases",
		Example: "  postern alias list --json",
		Args:    args(cobra.NoArgs),
		RunE: inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, _ []string) error {
			all, err := d.Aliases(cmd.Context())
			if err != nil {
				return err
			}
			return printAll(cmd, asJSON, all, func(a directory.Alias) string { return patternText(a.Address) + " -> " + joined(a.Targets) })
		}),
	}, &asJSON)
}
