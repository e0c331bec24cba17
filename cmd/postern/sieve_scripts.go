package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/plugins/sieve"
	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// sieveScripts is what one does with the scripts of an account.
type sieveScripts struct {
	store   *sieve.Store
	account mail.Path
}

// withScripts opens the scripts of an account for f, whether the gateway runs or not.
func withScripts(file, account string, f func(*sieveScripts) error) error {
	p, err := address(account)
	if err != nil {
		return err
	}
	c, err := load(file)
	if err != nil {
		return err
	}
	name, settings, err := sieveSettings(c)
	if err != nil {
		return err
	}
	return withDirectory(file, func(d *directory.Directory) error {
		if err := hasScripts(c, d, p); err != nil {
			return err
		}
		err := f(&sieveScripts{settings.Store(&pluginData{d, name}), p.Fold()})
		switch {
		case errors.Is(err, sieve.ErrNoScript):
			err = fmt.Errorf("%w; see postern sieve list %s", err, p)
		case errors.Is(err, sieve.ErrActive):
			err = fmt.Errorf("%w; activate another one first, or none: postern sieve deactivate %s", err, p)
		}
		return err
	})
}

// sieveSettings returns the name and the settings of the plugin sieve: the one that is
// listed, else what it would have.
func sieveSettings(c *config.Config) (string, sieve.Settings, error) {
	for _, p := range c.Plugins {
		if len(p.Command) == 0 && (p.Use == "sieve" || p.Use == "" && p.Name == "sieve") {
			s, err := sieve.SettingsOf(sdk.Config{Settings: p.Settings.TOML, DataDir: c.DataDir})
			if err != nil {
				err = fmt.Errorf("plugin %s: %w", p.Name, err)
			}
			return p.Name, s, err
		}
	}
	return "sieve", sieve.Defaults(), nil
}

// hasScripts refuses addresses whose scripts nobody would run.
func hasScripts(c *config.Config, d *directory.Directory, p mail.Path) error {
	targets, err := d.Resolve(context.Background(), p)
	switch {
	case errors.Is(err, directory.ErrNotFound):
		name, _, err := d.Local(context.Background(), p.Domain)
		if err == nil && slices.ContainsFunc(c.Domains, func(dom config.Domain) bool {
			return dom.Name == name && (dom.Recipients != "directory" || dom.Directory != "")
		}) {
			return nil // another server, or a plugin, knows the accounts
		}
		return fmt.Errorf("there is no account %s", p)
	case errors.Is(err, directory.ErrNotLocal):
		return fmt.Errorf("%s is not a domain of this gateway", p.Domain)
	case err != nil:
		return err
	case !slices.ContainsFunc(targets, func(t mail.Path) bool { return t.Fold() == p.Fold() }):
		var names []string
		for _, t := range targets {
			names = append(names, t.String())
		}
		return fmt.Errorf("%s is no account: it stands for %s", p, strings.Join(names, ", "))
	}
	return nil
}

// pluginData is a plugin's data in the directory, as the plugin itself sees it.
type pluginData struct {
	d      *directory.Directory
	plugin string
}

var _ sieve.Data = (*pluginData)(nil)

func (p *pluginData) Data(ctx context.Context, account mail.Path, key string) (sdk.Datum, error) {
	d, err := p.d.GetData(ctx, p.plugin, account, key)
	return sdk.Datum(d), err
}

func (p *pluginData) PutData(ctx context.Context, account mail.Path, key string, value []byte, version int64) (int64, error) {
	now, err := p.d.PutData(ctx, p.plugin, account, key, value, version)
	if errors.Is(err, directory.ErrConflict) {
		err = sdk.ErrConflict
	}
	return now, err
}

func (p *pluginData) DeleteData(ctx context.Context, account mail.Path, key string, version int64) error {
	_, err := p.PutData(ctx, account, key, nil, version)
	return err
}

func (p *pluginData) ListData(ctx context.Context, account mail.Path, prefix string, yield func(sdk.Datum) bool) error {
	list, err := p.d.ListData(ctx, p.plugin, account, prefix, directory.Datum{}, 1000)
	for _, d := range list {
		if !yield(sdk.Datum(d)) {
			break
		}
	}
	return err
}

func sievePutCommand(file *string) *cobra.Command {
	var activate bool
	cmd := &cobra.Command{
		Use:   "put ACCOUNT NAME FILE",
		Short: "Store a script of an account, if it has no faults",
		Long: `Store a script of an account, in the place of one with that name. One with faults is refused, with their lines.
"-" is standard input. It runs once it is active; one that was active stays so.`,
		Example: "  postern sieve put alice@example.org main ~/filter.sieve --activate",
		Args:    args(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := readInput(cmd, a[2])
			if err != nil {
				return usageError{err}
			}
			return withScripts(*file, a[0], func(s *sieveScripts) error {
				if _, faults := engine.Check(text, s.store.Engine); len(faults) > 0 {
					for _, f := range faults {
						fmt.Fprintf(cmd.ErrOrStderr(), "%s:%d: %s\n", a[2], f.Line, f.Message)
					}
					return errors.New("the script has faults and is not stored")
				}
				if err := s.store.Put(cmd.Context(), s.account, a[1], text); err != nil {
					return err
				}
				if activate {
					if err := s.store.Activate(cmd.Context(), s.account, a[1]); err != nil {
						return err
					}
				}
				return s.say(cmd, a[1], "stored")
			})
		},
	}
	cmd.Flags().BoolVar(&activate, "activate", false, "and make it the one that runs")
	return cmd
}

// say confirms what was done with a script.
func (s *sieveScripts) say(cmd *cobra.Command, name, done string) error {
	active, ok, err := s.store.Active(cmd.Context(), s.account)
	if err != nil {
		return err
	}
	state := "no script is active"
	if ok {
		state = fmt.Sprintf("script %q is active", active.Name)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "script %q of %s %s; %s\n", name, s.account, done, state)
	return err
}

func sieveListCommand(file *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list ACCOUNT",
		Short:   "List the scripts of an account",
		Example: "  postern sieve list alice@example.org --json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withScripts(*file, a[0], func(s *sieveScripts) error {
				list, err := s.store.List(cmd.Context(), s.account)
				if err != nil {
					return err
				}
				return printScripts(cmd.OutOrStdout(), list, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

func printScripts(w io.Writer, list []sieve.Script, asJSON bool) error {
	for _, script := range list {
		var err error
		if asJSON {
			err = terminal.JSON(w).Encode(script)
		} else {
			state := ""
			if script.Active {
				state = "  active"
			}
			_, err = fmt.Fprintf(w, "%-30s %7d bytes  %s%s\n", script.Name, script.Size, script.Changed.Format("2006-01-02 15:04:05Z"), state)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sieveGetCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "get ACCOUNT NAME",
		Short:   "Print a script of an account",
		Example: "  postern sieve get alice@example.org main > filter.sieve",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withScripts(*file, a[0], func(s *sieveScripts) error {
				_, text, err := s.store.Get(cmd.Context(), s.account, a[1])
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			})
		},
	}
}

func sieveActivateCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "activate ACCOUNT NAME",
		Short:   "Make a script of an account the one that runs",
		Example: "  postern sieve activate alice@example.org main",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withScripts(*file, a[0], func(s *sieveScripts) error {
				if a[1] == "" {
					return usageError{errors.New("name the script")}
				}
				if err := s.store.Activate(cmd.Context(), s.account, a[1]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "script %q of %s is active\n", a[1], s.account)
				return err
			})
		},
	}
}

func sieveDeactivateCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "deactivate ACCOUNT",
		Short:   "Let no script of an account run",
		Example: "  postern sieve deactivate alice@example.org",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withScripts(*file, a[0], func(s *sieveScripts) error {
				if err := s.store.Activate(cmd.Context(), s.account, ""); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "no script of %s is active\n", s.account)
				return err
			})
		},
	}
}

func sieveDeleteCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "delete ACCOUNT NAME",
		Short:   "Delete a script of an account that is not active",
		Example: "  postern sieve delete alice@example.org old",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withScripts(*file, a[0], func(s *sieveScripts) error {
				if err := s.store.Delete(cmd.Context(), s.account, a[1]); err != nil {
					return err
				}
				return s.say(cmd, a[1], "deleted")
			})
		},
	}
}
