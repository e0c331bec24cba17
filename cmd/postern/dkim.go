package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/plugins/dkim"
	"github.com/postern-mail/postern/sdk/mail"
)

func dkimCommand(file *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dkim",
		Short: "Keys for signing mail",
		Args:  func(_ *cobra.Command, a []string) error { return unknownCommand(a) },
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(dkimKeygen(file), dkimStatus(file, false), dkimStatus(file, true), dkimRotate(file))
	return cmd
}

func dkimKeygen(file *string) *cobra.Command {
	var selector, algorithm, dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "keygen DOMAIN",
		Short: "Make a key for a domain and print the DNS record that publishes it",
		Long: "Make a key for a domain and print the DNS record that publishes it.\n\n" +
			"The key goes into the folder where the plugin dkim looks by default, dkim in data_dir. A key that is there already is not replaced:\n" +
			"its record is printed again.",
		Example: "  postern dkim keygen example.org --selector mail\n  postern dkim keygen example.org --selector ed --algorithm ed25519",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := load(*file)
			if err != nil {
				return err
			}
			domain, err := mail.ParseDomain(a[0])
			if err != nil {
				return usageError{err}
			}
			if dir == "" {
				dir = filepath.Join(c.DataDir, "dkim")
				if err := gateway.BecomeOwner(c.DataDir); err != nil {
					return err
				}
			}
			if algorithm != "rsa" && algorithm != "ed25519" {
				return usageError{fmt.Errorf("--algorithm %q is no kind of key: use rsa or ed25519", algorithm)}
			}
			path, state := dkim.KeyFile(dir, domain, selector), "stays as it is"
			record, err := dkim.ReadRecord(dir, domain, selector)
			if err == nil && cmd.Flags().Changed("algorithm") && !strings.Contains(record.Value, "k="+algorithm+";") {
				return fmt.Errorf("the key in %s is there already and is no %s key: make another one beside it with --selector", path, algorithm)
			}
			if errors.Is(err, os.ErrNotExist) {
				path, record, err = dkim.Generate(dir, domain, selector, algorithm)
				state = "is new"
			}
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return terminal.JSON(out).Encode(map[string]string{"key_file": path, "name": record.Name, "value": record.Value})
			}
			fmt.Fprintf(out, "The key in %s %s. Publish this record, and name %s in the settings of the plugin that signs with it (dkim, or arc).\nSigning begins when the DNS shows the record:\n\n%s\n", path, state, domain, record.Zone())
			return nil
		},
	}
	cmd.Flags().StringVar(&selector, "selector", "postern", "the selector")
	cmd.Flags().StringVar(&algorithm, "algorithm", "rsa", "rsa or ed25519")
	cmd.Flags().StringVar(&dir, "key-dir", "", "the folder for keys (default: dkim in data_dir)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// keyring opens the keys of the configured plugin. asOwner is for commands that write.
func keyring(file string, asOwner bool) (*dkim.Keyring, error) {
	c, err := load(file)
	if err != nil {
		return nil, err
	}
	for ring, err := range gateway.Keyrings(c) {
		if err == nil && asOwner {
			err = gateway.BecomeOwner(c.DataDir)
		}
		return ring, err
	}
	return nil, errors.New("the plugin dkim is not configured; list it with the domains to sign for, as plugins/dkim/README.md shows")
}

func dkimStatus(file *string, online bool) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list [DOMAIN...]",
		Short:   "List the keys that mail is signed with",
		Long:    "List the keys that mail is signed with, those that wait for their record, and those whose record can go. The DNS is not asked; see also status.",
		Example: "  postern dkim list\n  postern dkim list example.org --json",
	}
	if online {
		cmd.Use, cmd.Short = "status [DOMAIN...]", "Tell which keys the DNS shows, and what to publish or remove"
		cmd.Long = "Tell which keys the DNS shows, and what to publish or remove.\n\nExit code 1: mail leaves unsigned, or signed with a key that the DNS does not have."
		cmd.Example = "  postern dkim status\n  postern dkim status example.org --json"
	}
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		domains := make([]mail.Domain, len(a))
		for i, name := range a {
			var err error
			if domains[i], err = mail.ParseDomain(name); err != nil {
				return usageError{err}
			}
		}
		ring, err := keyring(*file, false)
		if err != nil {
			return err
		}
		keys, err := ring.Status(cmd.Context(), domains, online)
		if err != nil {
			return err
		}
		return printKeys(cmd.OutOrStdout(), keys, asJSON)
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a key")
	return cmd
}

// printKeys lists keys, and what to do about them. It is an error if the DNS lacks one that
// is in use.
func printKeys(out io.Writer, keys []dkim.KeyStatus, asJSON bool) error {
	faults, unsigned := 0, 0
	e := terminal.JSON(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !asJSON {
		fmt.Fprintln(w, "DOMAIN\tSELECTOR\tKEY\tSTATE\tDNS\tMADE")
	}
	for _, k := range keys {
		if k.Fault() {
			faults++
			if k.Unsigned {
				unsigned++
			}
		}
		if asJSON {
			if err := e.Encode(k); err != nil {
				return err
			}
			continue
		}
		kind := k.Algorithm
		if k.Bits > 0 {
			kind += fmt.Sprintf(" (%d bits)", k.Bits)
		}
		state := k.State
		if !k.Until.IsZero() {
			state += " until " + k.Until.Format(time.DateOnly)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.Domain, k.Selector, kind, state, cmp.Or(k.DNS, "-"), k.Created.Format(time.DateOnly))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !asJSON {
		advise(out, keys)
	}
	if unsigned > 0 {
		return errors.New("mail leaves unsigned: the DNS does not have the key")
	}
	if faults > 0 {
		return errors.New("mail is signed with a key that the DNS does not have: receivers will not find it valid")
	}
	return nil
}

// advise says what to publish and what to remove.
func advise(out io.Writer, keys []dkim.KeyStatus) {
	for _, k := range keys {
		if k.Unsigned {
			fmt.Fprintf(out, "\nMail of %s leaves unsigned until the DNS shows %s; signing then begins by itself.\n", k.Domain, k.Record.Name)
		}
		switch {
		case k.State == "retired":
			fmt.Fprintf(out, "\nNothing is signed with %s any more. Remove its record from the DNS.\n", k.Record.Name)
		case k.DNS == "missing" && k.State != "overlap":
			fmt.Fprintf(out, "\nThe DNS does not have %s yet. Publish this record:\n\n%s\n", k.Record.Name, k.Record.Zone())
		case k.DNS == "different" && k.State != "overlap":
			fmt.Fprintf(out, "\nThe DNS has another key under %s than the file %s. Publish this record, or make a new key with postern dkim rotate:\n\n%s\n", k.Record.Name, k.File, k.Record.Zone())
		case (k.DNS == "missing" || k.DNS == "different") && k.State == "overlap":
			fmt.Fprintf(out, "\nThe record %s is gone early: mail that was signed with it cannot be verified any more.\n", k.Record.Name)
		}
	}
}

func dkimRotate(file *string) *cobra.Command {
	var selector string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rotate DOMAIN",
		Short: "Make the next key for a domain and print the DNS record that publishes it",
		Long: "Make the next key for each signature of a domain and print the DNS records that publish them.\n\n" +
			"The gateway goes on signing with the old key until the DNS shows the new one, and needs no reload. The record of the old key\n" +
			"has to stay until the overlap is over, which status and the log tell. While a key waits for its record no other is made:\n" +
			"the command prints that record again.",
		Example: "  postern dkim rotate example.org\n  postern dkim rotate example.org --selector ed --json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			domain, err := mail.ParseDomain(a[0])
			if err != nil {
				return usageError{err}
			}
			ring, err := keyring(*file, true)
			if err != nil {
				return err
			}
			keys, err := ring.Rotate(cmd.Context(), domain, selector)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return printKeys(out, keys, true)
			}
			for _, k := range keys {
				fmt.Fprintf(out, "The next key for %s is in %s. Publish this record:\n\n%s\n\n", k.Domain, k.File, k.Record.Zone())
				switch {
				case k.Unsigned:
					fmt.Fprintf(out, "The DNS does not show it yet (%s), nor a key before it: mail leaves unsigned until it does;\nsee: postern dkim status %s\n\n", k.DNS, k.Domain)
				case k.DNS != "published":
					fmt.Fprintf(out, "The DNS does not show it yet (%s). The gateway signs with the old key until it does;\nsee: postern dkim status %s\n\n", k.DNS, k.Domain)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&selector, "selector", "", "only the signature whose selectors begin with this")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a key")
	return cmd
}
