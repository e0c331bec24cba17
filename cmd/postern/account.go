package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/sdk/mail"
)

func accountCommand(file *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account",
		Short: "Accounts: who has a mailbox and may log in",
		Long:  "Accounts: who has a mailbox and may log in.\n\nChanges are in force at once, in a running gateway too.",
		Args:  func(_ *cobra.Command, a []string) error { return unknownCommand(a) },
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(accountAdd(file), accountPassword(file), accountRemove(file), accountList(file))
	return cmd
}

// withDirectory opens the directory of a configuration for f.
func withDirectory(file string, f func(*directory.Directory) error) error {
	c, err := load(file)
	if err != nil {
		return err
	}
	if err := becomeOwner(c.DataDir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.DataDir, 0o710); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	d, err := directory.Open(directory.Options{Path: directoryFile(c), Hostname: c.Hostname, Postmaster: c.Postmaster})
	if err != nil {
		return err
	}
	defer d.Close()
	d.Declare(declared(c), c.Postmaster)
	return f(d)
}

func address(s string) (mail.Path, error) {
	p, err := mail.ParsePath(s)
	if err != nil || p.IsZero() {
		return p, usageError{fmt.Errorf("%q is not an address", s)}
	}
	return p, nil
}

// passwordFlags adds the ways to give a password. None of them shows it to other users.
func passwordFlags(cmd *cobra.Command, stdin *bool) {
	cmd.Flags().BoolVar(stdin, "password-stdin", false, "read the password from the first line of standard input (else: POSTERN_PASSWORD in the environment)")
}

// readPassword reads a password from standard input, or from POSTERN_PASSWORD.
func readPassword(in io.Reader, stdin bool) (string, error) {
	if !stdin {
		if p := os.Getenv("POSTERN_PASSWORD"); p != "" {
			return p, nil
		}
		return "", usageError{errors.New("give the password with --password-stdin, or in the environment as POSTERN_PASSWORD")}
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.New("the password on standard input is empty")
	}
	return line, nil
}

func accountAdd(file *string) *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use:     "add ADDRESS",
		Short:   "Add an account; without a password it receives mail and cannot log in",
		Example: "  postern account add alice@example.org --password-stdin < secret",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			p, err := address(a[0])
			if err != nil {
				return err
			}
			note := ""
			password := os.Getenv("POSTERN_PASSWORD")
			if stdin {
				if password, err = readPassword(cmd.InOrStdin(), true); err != nil {
					return err
				}
			}
			if password == "" { // nobody knows this one, so nobody logs in
				password = rand.Text()
				note = "; without a password: it receives mail and cannot log in"
			}
			return withDirectory(*file, func(d *directory.Directory) error {
				if err := d.AddAccount(cmd.Context(), p, password); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s added%s\n", p, note)
				return nil
			})
		},
	}
	passwordFlags(cmd, &stdin)
	return cmd
}

func accountPassword(file *string) *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use:     "passwd ADDRESS",
		Short:   "Set the password of an account",
		Example: "  postern account passwd alice@example.org --password-stdin < secret",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			p, err := address(a[0])
			if err != nil {
				return err
			}
			password, err := readPassword(cmd.InOrStdin(), stdin)
			if err != nil {
				return err
			}
			return withDirectory(*file, func(d *directory.Directory) error {
				if err := d.SetPassword(cmd.Context(), p, password); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "password of %s set\n", p)
				return nil
			})
		},
	}
	passwordFlags(cmd, &stdin)
	return cmd
}

func accountRemove(file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "remove ADDRESS",
		Short:   "Remove an account; its stored mail stays on disk",
		Example: "  postern account remove alice@example.org",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			p, err := address(a[0])
			if err != nil {
				return err
			}
			return withDirectory(*file, func(d *directory.Directory) error {
				if err := d.RemoveAccount(cmd.Context(), p); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s removed\n", p)
				return nil
			})
		},
	}
}

func accountList(file *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the accounts",
		Example: "  postern account list --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withDirectory(*file, func(d *directory.Directory) error {
				all, err := d.Accounts(cmd.Context())
				if err != nil {
					return err
				}
				out := cmd.OutOrStdout()
				for _, a := range all {
					switch {
					case asJSON:
						if err := json.NewEncoder(out).Encode(a); err != nil {
							return err
						}
					case a.Enabled:
						fmt.Fprintln(out, a.Address)
					default:
						fmt.Fprintln(out, a.Address, "(disabled)")
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}
