package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

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
	cmd.AddCommand(dkimKeygen(file))
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
				if err := becomeOwner(c.DataDir); err != nil {
					return err
				}
			}
			path, state := dkim.KeyFile(dir, domain, selector), "stays as it is"
			record, err := dkim.ReadRecord(dir, domain, selector)
			if errors.Is(err, os.ErrNotExist) {
				path, record, err = dkim.Generate(dir, domain, selector, algorithm)
				state = "is new"
			}
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(out).Encode(map[string]string{"key_file": path, "name": record.Name, "value": record.Value})
			}
			fmt.Fprintf(out, "The key in %s %s. Publish this record, then list %s in the settings of the plugin dkim:\n\n%s\n", path, state, domain, record.Zone())
			return nil
		},
	}
	cmd.Flags().StringVar(&selector, "selector", "postern", "the selector")
	cmd.Flags().StringVar(&algorithm, "algorithm", "rsa", "rsa or ed25519")
	cmd.Flags().StringVar(&dir, "key-dir", "", "the folder for keys (default: dkim in data_dir)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}
