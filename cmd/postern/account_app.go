package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/sdk/mail"
)

func accountApp(file *string) *cobra.Command {
	return branch("app-password", "Further passwords of an account, one for each device or program",
		"Further passwords of an account, one for each device or program: any of them logs in, and each can be revoked alone."+inForce,
		accountAppAdd(file), accountAppList(file), accountAppRevoke(file))
}

func accountAppAdd(file *string) *cobra.Command {
	var asJSON bool
	return jsonFlag(&cobra.Command{
		Use:     "add ADDRESS NAME",
		Short:   "Make an app password and show it, this once",
		Example: "  postern account app-password add alice@example.org phone",
		Args:    args(cobra.ExactArgs(2)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, rest []string) error {
			password, err := d.AddAppPassword(cmd.Context(), p, rest[0])
			if err != nil {
				return err
			}
			if asJSON {
				return terminal.JSON(cmd.OutOrStdout()).Encode(map[string]string{"name": rest[0], "password": password})
			}
			return say(cmd, "%s", password)
		}),
	}, &asJSON)
}

func accountAppList(file *string) *cobra.Command {
	var asJSON bool
	return jsonFlag(&cobra.Command{
		Use:     "list ADDRESS",
		Short:   "List the app passwords of an account, with about when each was used last",
		Example: "  postern account app-password list alice@example.org",
		Args:    args(cobra.ExactArgs(1)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, _ []string) error {
			if _, err := theAccount(cmd, d, p); err != nil {
				return err
			}
			all, err := d.AppPasswords(cmd.Context(), p)
			if err != nil {
				return err
			}
			return printAll(cmd, asJSON, all, appText)
		}),
	}, &asJSON)
}

func appText(a directory.AppPassword) string {
	used := "never used"
	if !a.Used.IsZero() {
		used = "used " + a.Used.Local().Format(time.DateTime)
	}
	return a.Name + " (since " + a.Created.Local().Format(time.DateOnly) + ", " + used + ")"
}

func accountAppRevoke(file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ADDRESS NAME",
		Short:   "End an app password; the others stay",
		Example: "  postern account app-password revoke alice@example.org phone",
		Args:    args(cobra.ExactArgs(2)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, rest []string) error {
			if err := d.RevokeAppPassword(cmd.Context(), p, rest[0]); err != nil {
				return err
			}
			return say(cmd, "app password %s of %s revoked", rest[0], p)
		}),
	}
}
