package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/sdk/mail"
)

func domainCommand(file *string) *cobra.Command {
	return branch("domain", "Domains that the gateway is responsible for",
		"Domains that the gateway is responsible for, besides those that the configuration declares: they are kept in the directory, and mean the same as a [[domain]] there.\n"+
			"A running gateway puts a change in force within a second, and keeps what it has when it cannot (its log says why).",
		domainAdd(file), domainSet(file), domainRemove(file), domainList(file), domainImport(file))
}

// domainFlags are what is said about a domain.
type domainFlags struct {
	deliver, aliases, catchAll                 []string
	recipients, directory, planner, postmaster string
	quota                                      quotaFlags
}

func (f *domainFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringSliceVar(&f.deliver, "deliver", nil, `where its mail goes: "maildir", "smtp://host:port", "lmtp://host:port", ...; several are tried in order`)
	fs.StringSliceVar(&f.aliases, "alias", nil, "other names for it")
	fs.StringVar(&f.recipients, "recipients", "", `which addresses exist: "directory", "callahead" or "any"`)
	fs.StringVar(&f.directory, "directory", "", "the plugin that knows them and checks passwords")
	fs.StringVar(&f.planner, "planner", "", "the plugin that decides what becomes of a message before it goes into the mailbox")
	fs.StringVar(&f.postmaster, "postmaster", "", "who gets mail for postmaster, if there is no such account or alias")
	fs.StringSliceVar(&f.catchAll, "catch-all", nil, "who gets mail for addresses that do not exist")
	f.quota.add(cmd, "a mailbox without a quota of its own")
}

// put changes what was given.
func (f *domainFlags) put(cmd *cobra.Command, d *directory.Domain) error {
	given := cmd.Flags().Changed
	var err error
	if given("deliver") {
		d.Deliver = nonEmpty(f.deliver)
	}
	if given("alias") {
		d.Aliases = nil
		for _, s := range nonEmpty(f.aliases) {
			name, err := domainName(s)
			if err != nil {
				return err
			}
			d.Aliases = append(d.Aliases, name)
		}
	}
	if given("catch-all") {
		if d.CatchAll, err = addresses(nonEmpty(f.catchAll)); err != nil {
			return err
		}
	}
	if given("postmaster") {
		d.Postmaster = mail.Path{}
		if f.postmaster != "" {
			if d.Postmaster, err = address(f.postmaster); err != nil {
				return err
			}
		}
	}
	for name, set := range map[string]struct {
		to   *string
		from string
	}{"recipients": {&d.Recipients, f.recipients}, "directory": {&d.Directory, f.directory}, "planner": {&d.Planner, f.planner}} {
		if given(name) {
			*set.to = set.from
		}
	}
	bytes, messages, err := f.quota.parse()
	if bytes != nil {
		d.Quota.Bytes = *bytes
	}
	if messages != nil {
		d.Quota.Messages = *messages
	}
	return err
}

func nonEmpty(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.TrimSpace(s) == "" })
}

// checkStored refuses a domain that a gateway with this configuration could not work with.
func checkStored(cmd *cobra.Command, c *config.Config, d *directory.Directory, dom directory.Domain) error {
	stored, err := d.Domains(cmd.Context())
	if err != nil {
		return err
	}
	stored = slices.DeleteFunc(slices.Clone(stored), func(o directory.Domain) bool { return o.Name == dom.Name })
	return plainProblems(gateway.CheckDomains(c, append(stored, dom)), len(c.Domains))
}

// plainProblems leaves the place in the file out of problems with domains that are not in it.
func plainProblems(err error, declared int) error {
	var ps config.Problems
	if !errors.As(err, &ps) {
		return err
	}
	var out []error
	for _, p := range ps {
		var i int
		_, key, _ := strings.Cut(p.Key, "].")
		if n, _ := fmt.Sscanf(p.Key, "domain[%d]", &i); n == 1 && i >= declared && key != "" {
			out = append(out, fmt.Errorf("%s: %s", key, p.Text))
		} else {
			out = append(out, errors.New(p.String()))
		}
	}
	return errors.Join(out...)
}

// withBoth is withDirectory for what needs the configuration too.
func withBoth(file string, f func(*config.Config, *directory.Directory) error) error {
	c, err := load(file)
	if err != nil {
		return err
	}
	return withDirectory(file, func(d *directory.Directory) error { return f(c, d) })
}

func domainAdd(file *string) *cobra.Command {
	var flags domainFlags
	cmd := &cobra.Command{
		Use:   "add NAME --deliver WHERE",
		Short: "Add a domain",
		Example: "  postern domain add example.com --deliver maildir --quota 5GiB\n" +
			"  postern domain add example.net --deliver smtp://192.0.2.1:25 --recipients callahead --alias example.info",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			name, err := domainName(a[0])
			if err != nil {
				return err
			}
			return withBoth(*file, func(c *config.Config, d *directory.Directory) error {
				dom := directory.Domain{Name: name, Recipients: directory.RecipientsDirectory}
				if err := flags.put(cmd, &dom); err != nil {
					return err
				}
				if slices.ContainsFunc(c.Domains, func(o config.Domain) bool { return o.Name == name }) {
					return fmt.Errorf("domain %s: is declared in the configuration: change it there", name)
				}
				if err := checkStored(cmd, c, d, dom); err != nil {
					return fmt.Errorf("domain %s: %w", name, err)
				}
				if err := d.AddDomain(cmd.Context(), dom); err != nil {
					return err
				}
				return say(cmd, "%s added", name)
			})
		},
	}
	flags.add(cmd)
	return cmd
}

func domainSet(file *string) *cobra.Command {
	var flags domainFlags
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change what is given of a domain; the rest stays",
		Example: "  postern domain set example.com --quota 10GiB --postmaster alice@example.com\n" +
			"  postern domain set example.com --catch-all ''",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			name, err := domainName(a[0])
			if err != nil {
				return err
			}
			given := cmd.Flags().NFlag()
			if cmd.Flags().Changed("config") {
				given--
			}
			if given == 0 {
				return usageError{fmt.Errorf("say what to change, as in: %s", strings.TrimSpace(strings.SplitN(cmd.Example, "\n", 2)[0]))}
			}
			return withBoth(*file, func(c *config.Config, d *directory.Directory) error {
				err := d.SetDomain(cmd.Context(), name, func(dom *directory.Domain) error {
					if err := flags.put(cmd, dom); err != nil {
						return err
					}
					return checkStored(cmd, c, d, *dom)
				})
				if err != nil {
					return err
				}
				return say(cmd, "%s changed", name)
			})
		},
	}
	flags.add(cmd)
	return cmd
}

func domainRemove(file *string) *cobra.Command {
	var withAccounts bool
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a domain with its aliases and groups; stored mail stays on disk",
		Example: "  postern domain remove example.com --with-accounts",
		Args:    args(cobra.ExactArgs(1)),
		RunE: inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, a []string) error {
			name, err := domainName(a[0])
			if err != nil {
				return err
			}
			err = d.RemoveDomain(cmd.Context(), name, withAccounts)
			if errors.Is(err, directory.ErrNotEmpty) {
				return fmt.Errorf("%w; remove them too with --with-accounts", err)
			}
			if err != nil {
				return err
			}
			return say(cmd, "%s removed", name)
		}),
	}
	cmd.Flags().BoolVar(&withAccounts, "with-accounts", false, "remove its accounts too")
	return cmd
}

// listedDomain is a domain and where it is from.
type listedDomain struct {
	directory.Domain
	From string `json:"from"` // configuration or directory
}

func domainList(file *string) *cobra.Command {
	var asJSON bool
	return jsonFlag(&cobra.Command{
		Use:     "list",
		Short:   "List all domains: of the configuration, and of the directory",
		Example: "  postern domain list --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBoth(*file, func(c *config.Config, d *directory.Directory) error {
				var all []listedDomain
				for _, dom := range gateway.Declared(c) {
					all = append(all, listedDomain{dom, "configuration"})
				}
				stored, err := d.Domains(cmd.Context())
				if err != nil {
					return err
				}
				for _, dom := range stored {
					all = append(all, listedDomain{dom, "directory"})
				}
				return printAll(cmd, asJSON, all, listedDomain.text)
			})
		},
	}, &asJSON)
}

func (d listedDomain) text() string {
	s := d.Name.String() + " -> " + strings.Join(d.Deliver, " ")
	part := func(name, value string) {
		if value != "" {
			s += ", " + name + " " + value
		}
	}
	part("recipients", d.Recipients)
	part("directory", d.Domain.Directory)
	part("planner", d.Planner)
	var names []string
	for _, a := range d.Aliases {
		names = append(names, a.String())
	}
	part("also", strings.Join(names, " "))
	if !d.Postmaster.IsZero() {
		part("postmaster", d.Postmaster.String())
	}
	part("catch-all", joined(d.CatchAll))
	if d.Quota != (directory.Quota{}) {
		part("quota", quotaText(d.Quota))
	}
	return s + " (" + d.From + ")"
}
