package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/plugins/maildir"
	"github.com/postern-mail/postern/plugins/sieve"
	"github.com/postern-mail/postern/sdk/mail"
)

func accountCommand(file *string) *cobra.Command {
	return branch("account", "Accounts: who has a mailbox and may log in", "Accounts: who has a mailbox and may log in."+inForce,
		accountAdd(file), accountPassword(file), accountRemove(file), accountEnable(file, true), accountEnable(file, false), accountQuota(file), accountName(file), accountSet(file),
		accountList(file), accountShow(file), accountApp(file), accountImport(file))
}

// withDirectory opens the directory of a configuration for f.
func withDirectory(file string, f func(*directory.Directory) error) error {
	c, err := load(file)
	if err != nil {
		return err
	}
	d, err := gateway.OpenDirectory(c)
	if err != nil {
		return err
	}
	defer d.Close()
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
	var stdin, disabled bool
	var name string
	var quota quotaFlags
	cmd := &cobra.Command{
		Use:   "add ADDRESS",
		Short: "Add an account; without a password it receives mail and cannot log in",
		Example: "  postern account add alice@example.org --password-stdin < secret\n" +
			"  postern account add bob@example.org --name 'Bob B.' --quota 5GiB --password-stdin < secret",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			p, err := address(a[0])
			if err != nil {
				return err
			}
			one := &directory.NewAccount{Address: p, DisplayName: name, Disabled: disabled, Password: os.Getenv("POSTERN_PASSWORD")}
			if one.QuotaBytes, one.QuotaMessages, err = quota.parse(); err != nil {
				return err
			}
			if stdin {
				if one.Password, err = readPassword(cmd.InOrStdin(), true); err != nil {
					return err
				}
			}
			note := ""
			if one.Password == "" {
				note = "; without a password: it receives mail and cannot log in"
			}
			return withDirectory(*file, func(d *directory.Directory) error {
				if err := d.AddNewAccount(cmd.Context(), one); err != nil {
					return err
				}
				if name, _, err := d.Local(cmd.Context(), p.Domain); err == nil {
					if dom, err := d.Domain(cmd.Context(), name); err == nil && dom.Directory != "" {
						note += fmt.Sprintf("; it does not count as long as the addresses of %s are those of the plugin %s", name, dom.Directory)
					}
				}
				return say(cmd, "%s added%s", p, note)
			})
		},
	}
	passwordFlags(cmd, &stdin)
	cmd.Flags().StringVar(&name, "name", "", "the name of the owner")
	cmd.Flags().BoolVar(&disabled, "disabled", false, "it gets no mail and cannot log in until it is enabled")
	quota.add(cmd, "the mailbox")
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
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, _ []string) error {
			if err := d.RemoveAccount(cmd.Context(), p); err != nil {
				return err
			}
			left, err := d.LeadingTo(cmd.Context(), p)
			if err != nil {
				return err
			}
			if len(left) > 0 {
				return say(cmd, "%s removed; aliases and groups still name it: %s", p, joined(left))
			}
			return say(cmd, "%s removed", p)
		}),
	}
}

func accountEnable(file *string, enabled bool) *cobra.Command {
	word, short := "enable", "Enable a disabled account"
	if !enabled {
		word, short = "disable", "Disable an account: it gets no mail (550 5.2.1) and cannot log in; nothing is lost"
	}
	return &cobra.Command{
		Use:     word + " ADDRESS",
		Short:   short,
		Example: "  postern account " + word + " alice@example.org",
		Args:    args(cobra.ExactArgs(1)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, _ []string) error {
			if err := d.SetEnabled(cmd.Context(), p, enabled); err != nil {
				return err
			}
			return say(cmd, "%s %sd", p, word)
		}),
	}
}

func accountQuota(file *string) *cobra.Command {
	var messages string
	cmd := &cobra.Command{
		Use:   "quota ADDRESS [SIZE]",
		Short: "Set what a mailbox may hold; default: as its domain has it; 0: no limit",
		Example: "  postern account quota alice@example.org 5GiB\n" +
			"  postern account quota alice@example.org --messages 10000\n" +
			"  postern account quota alice@example.org default --messages default",
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, rest []string) error {
			size := ""
			if len(rest) > 0 {
				size = rest[0]
			}
			if size == "" && messages == "" {
				return usageError{errors.New("give a size, or --messages")}
			}
			return setQuota(cmd, d, p, size, messages)
		}),
	}
	cmd.Flags().StringVar(&messages, "messages", "", "the most messages; default: as its domain has it; 0: no limit")
	return cmd
}

// setQuota changes the parts that are given.
func setQuota(cmd *cobra.Command, d *directory.Directory, p mail.Path, size, messages string) error {
	a, err := theAccount(cmd, d, p)
	if err != nil {
		return err
	}
	own, ownMessages, err := (&quotaFlags{size, messages}).parse()
	if err != nil {
		return err
	}
	if size == "" && a.OwnBytes {
		own = &a.Bytes
	}
	if messages == "" && a.OwnMessages {
		ownMessages = &a.Messages
	}
	if err := d.SetQuota(cmd.Context(), a.Address, own, ownMessages); err != nil {
		return err
	}
	if a, err = theAccount(cmd, d, p); err != nil {
		return err
	}
	return say(cmd, "%s may hold: %s", a.Address, quotaText(a.Quota))
}

// theAccount is the account of that very address, also at another name of its domain.
func theAccount(cmd *cobra.Command, d *directory.Directory, p mail.Path) (directory.Account, error) {
	a, ok, err := d.Account(cmd.Context(), p)
	if err == nil && (!ok || a.Address.Local != p.Fold().Local) {
		err = fmt.Errorf("account %s: %w", p, directory.ErrUnknown)
	}
	return a, err
}

func accountName(file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "name ADDRESS NAME",
		Short:   "Set the name of an account's owner; an empty one removes it",
		Example: "  postern account name alice@example.org 'Alice A.'",
		Args:    args(cobra.ExactArgs(2)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, rest []string) error {
			if err := d.SetDisplayName(cmd.Context(), p, rest[0]); err != nil {
				return err
			}
			return say(cmd, "name of %s set", p)
		}),
	}
}

func accountSet(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "set ADDRESS KEY [VALUE]",
		Short: "Set something for an account that a plugin reads; without a value it is as before",
		Long: "Set something for an account that a plugin reads; without a value it is as before.\n\n" +
			"What keys there are and what they mean is in the documentation of the plugins." + inForce,
		Example: "  postern account set alice@example.org trash_expiry 30d\n  postern account set alice@example.org trash_expiry",
		Args:    args(cobra.RangeArgs(2, 3)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, rest []string) error {
			value := ""
			if len(rest) == 2 {
				value = rest[1]
			}
			known, err := checkSetting(rest[0], value)
			if err != nil {
				return err
			}
			if err := d.SetSetting(cmd.Context(), p, rest[0], value); err != nil {
				return err
			}
			if value == "" {
				return say(cmd, "%s of %s is no longer set", rest[0], p)
			}
			if !known {
				return say(cmd, "%s of %s set; no plugin that comes with Postern reads it", rest[0], p)
			}
			return say(cmd, "%s of %s set", rest[0], p)
		}),
	}
}

// checkSetting refuses a value that the plugin which reads the key could not use; known: there is
// such a plugin among ours. What others read is theirs to understand.
func checkSetting(key, value string) (known bool, err error) {
	if value == "" { // it goes
		return true, nil
	}
	for _, check := range []func(key, value string) (bool, error){sieve.CheckSetting, maildir.CheckSetting} {
		if known, err := check(key, value); known {
			return true, err
		}
	}
	return false, nil
}

func accountList(file *string) *cobra.Command {
	var asJSON bool
	return jsonFlag(&cobra.Command{
		Use:     "list",
		Short:   "List the accounts",
		Example: "  postern account list --json",
		Args:    args(cobra.NoArgs),
		RunE: inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, _ []string) error {
			all, err := d.Accounts(cmd.Context())
			if err != nil {
				return err
			}
			return printAll(cmd, asJSON, all, func(a directory.Account) string {
				if a.Enabled {
					return a.Address.String()
				}
				return a.Address.String() + " (disabled)"
			})
		}),
	}, &asJSON)
}

// shown is all about one account.
type shown struct {
	directory.Account
	AppPasswords []directory.AppPassword `json:"app_passwords,omitempty"`
	LedBy        []mail.Path             `json:"aliases,omitempty"`
}

func accountShow(file *string) *cobra.Command {
	var asJSON bool
	return jsonFlag(&cobra.Command{
		Use:     "show ADDRESS",
		Short:   "Show an account: quota, settings, app passwords, aliases and groups that lead to it",
		Example: "  postern account show alice@example.org",
		Args:    args(cobra.ExactArgs(1)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, _ []string) error {
			a, err := theAccount(cmd, d, p)
			if err != nil {
				return err
			}
			s := shown{Account: a}
			if s.AppPasswords, err = d.AppPasswords(cmd.Context(), a.Address); err != nil {
				return err
			}
			if s.LedBy, err = d.LeadingTo(cmd.Context(), a.Address); err != nil {
				return err
			}
			return printAll(cmd, asJSON, []shown{s}, shown.text)
		}),
	}, &asJSON)
}

func (s shown) text() string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s%s\n", name, value)
		}
	}
	line("account", s.Address.String())
	line("name", s.DisplayName)
	line("enabled", map[bool]string{true: "yes", false: "no"}[s.Enabled])
	line("since", s.Created.Format(time.DateOnly))
	line("quota", quotaText(s.Quota))
	for _, k := range slices.Sorted(maps.Keys(s.Settings)) {
		line("setting", k+" = "+s.Settings[k])
	}
	for _, app := range s.AppPasswords {
		line("app", appText(app))
	}
	line("aliases", joined(s.LedBy))
	return strings.TrimSuffix(b.String(), "\n")
}

func accountImport(file *string) *cobra.Command {
	return importCommand(file, "accounts", "Add accounts from a CSV file",
		"  postern account import users.csv --dry-run\n  printf 'address,password,quota\\nalice@example.org,secret,5GiB\\n' | postern account import -",
		[]string{"address"}, []string{"password", "display_name", "quota", "quota_messages", "enabled"}, accountItem, nil)
}
