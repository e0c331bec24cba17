package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/trial"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/sdk/mail"
)

// stranger is who brings a message if nobody is named: an address of RFC 5737's TEST-NET-1,
// which is in no relay network unless somebody put everybody there.
const stranger = "192.0.2.1"

const tryHelp = `Send messages through the configured plugins without delivering them.

No gateway has to run, and one that runs is not disturbed: the plugins are started once more, for
this command only, with copies of the directory and of what plugins keep in data_dir, and with state of their
own. Nothing is queued, sent or kept. Everything else is as for a client of the listener: access lists, relaying, recipients, the
plugins at connect, HELO, MAIL and RCPT, the header, aliases, every plugin in its order, the next hops.
Limits by time (messages a minute) are not applied, and recipients' plans (Sieve) are not made. A content
filter that brings mail back (smtpfilter) can be tried only while no gateway has its listener.
The DNS is asked for the client's name, as for a real one ([dns] client_names).
Servers behind the gateway are not asked about recipients (callahead): one of which nothing is known is taken.

MESSAGE is a file with header and body, - is standard input. Unless --client says otherwise the client
is a stranger at ` + stranger + `; name one in a relay network to try mail that goes out, or --user for
somebody who has logged in. Plugins that are not shown were not asked: mail of that origin (incoming, submitted)
is not theirs, or one before them refused it. --without greylist shows what comes behind that.

Without --json each plugin's verdict, time, scores, notes and what it changed are printed for people.
With --json there is a line a message:

  {"disposition": "deliver|reject|defer|discard|quarantine",
   "reply": {"code": 550, "text": "5.7.1 Relaying denied"},
   "plugins": [{"name": "...", "verdict": "...", "ms": 1.2, "changed": false, "scores": {}, "notes": {}}],
   "headers": [["Name", "value"]],
   "routes": [{"recipient": "...", "disposition": "...", "next_hop": "..."}]}

  disposition  what comes of the message as far as the client is told: deliver if any recipient is
               delivered to. Mail that is accepted, but has to wait for a plugin, is a defer with code 250.
  reply        the last reply that the client gets, text with its enhanced code.
  plugins      those that were asked, in order, each once. verdict is continue, reject, tempfail, discard,
               quarantine or unscanned: the first that was not continue, if there were several (of a gate,
               for recipients). A plugin that failed to answer is unscanned, with the cause in its note "unscanned".
  headers      of the (first) version that is delivered, else of the message as it was refused or held,
               unfolded; none if it was refused before its content came.
  routes       where it goes, by recipient after aliases, and copies that plugins make. next_hop is
               empty unless the disposition is deliver.

Exit code 0: every message has been tried, whatever came of it; 1: one could not be, or a plugin does not
start; 2: the command was not understood.`

func tryCommand(file *string) *cobra.Command {
	var o tryFlags
	cmd := &cobra.Command{
		Use:   "try MESSAGE...",
		Short: "Show what the plugins would make of a message, without delivering it",
		Long:  tryHelp,
		Example: "  postern try message.eml --from sender@example.net --to you@example.org\n" +
			"  postern try message.eml --from sender@example.net --to you@example.org --without greylist,dnsbl\n" +
			"  postern try *.eml --from a@example.net --to you@example.org --client 198.51.100.7 --helo mail.example.net --json",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := load(*file)
			if err != nil {
				return err
			}
			o.fromGiven = cmd.Flags().Changed("from")
			e, err := o.envelope(c)
			if err != nil {
				return usageError{err}
			}
			if c, err = without(c, o.without); err != nil {
				return usageError{err}
			}
			return try(cmd.Context(), c, e, a, o.json, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&o.from, "from", "", "the reverse-path; <> is the null one")
	cmd.Flags().StringArrayVar(&o.to, "to", nil, "a recipient; may be given again")
	cmd.Flags().StringVar(&o.client, "client", stranger, "the client's address")
	cmd.Flags().StringVar(&o.helo, "helo", "", "what the client says at EHLO (default: its address, as a literal)")
	cmd.Flags().StringVar(&o.user, "user", "", "the account as which the client has logged in")
	cmd.Flags().StringSliceVar(&o.without, "without", nil, "plugins that are left out, with commas between them")
	cmd.Flags().BoolVar(&o.json, "json", false, "a JSON object a message, one line each")
	return cmd
}

type tryFlags struct {
	from, client, helo, user string
	to, without              []string
	fromGiven, json          bool
}

// without is the configuration without some of its plugins.
func without(c *config.Config, names []string) (*config.Config, error) {
	left := *c
	for _, name := range names {
		if !slices.ContainsFunc(c.Plugins, func(p config.Plugin) bool { return p.Name == name }) {
			return nil, fmt.Errorf("--without %q: there is no [[plugin]] of that name", name)
		}
	}
	left.Plugins = slices.DeleteFunc(slices.Clone(c.Plugins), func(p config.Plugin) bool { return slices.Contains(names, p.Name) })
	return &left, nil
}

func (o *tryFlags) envelope(c *config.Config) (e trial.Envelope, err error) {
	if !o.fromGiven || len(o.to) == 0 {
		return e, errors.New("say who sends it and to whom: --from ADDRESS --to ADDRESS")
	}
	if e.From, err = mail.ParsePath(unbracketed(o.from)); err != nil {
		return e, fmt.Errorf("--from %q: %w", o.from, err)
	}
	for _, t := range o.to {
		p, err := mail.ParsePath(unbracketed(t))
		if err != nil || p.IsZero() {
			return e, fmt.Errorf("--to %q is not an address", t)
		}
		e.To = append(e.To, p)
	}
	if e.Client, err = netip.ParseAddr(o.client); err != nil || e.Client.Zone() != "" {
		return e, fmt.Errorf("--client %q is not an IP address", o.client)
	}
	e.Client = e.Client.Unmap()
	e.Helo = o.helo
	if e.Helo == "" {
		e.Helo = "[" + e.Client.String() + "]"
		if e.Client.Is6() {
			e.Helo = "[IPv6:" + e.Client.String() + "]"
		}
	}
	if strings.ContainsFunc(e.Helo, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return e, fmt.Errorf("--helo %q is not a host name", o.helo)
	}
	if e.User = o.user; e.User != "" {
		if !strings.Contains(e.User, "@") && !c.Auth.DefaultDomain.IsZero() {
			e.User += "@" + c.Auth.DefaultDomain.String()
		}
		account, err := mail.ParsePath(e.User)
		if err != nil || account.IsZero() {
			return e, fmt.Errorf("--user %q is not an account: give its whole address", o.user)
		}
		e.User = account.String()
	}
	e.Origin = mail.Incoming
	inside := slices.ContainsFunc(c.Prefixes(c.Relay.Networks), func(n netip.Prefix) bool { return n.Contains(e.Client) })
	if inside || e.User != "" {
		e.Origin = mail.Submitted
	}
	return e, nil
}

func unbracketed(s string) string {
	return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
}

// try tries every message that is named. The error says that one could not be.
func try(ctx context.Context, c *config.Config, e trial.Envelope, names []string, asJSON bool, stdin io.Reader, out io.Writer) error {
	// The files first: they may be readable for whoever runs this, and not for the owner of
	// the data directory.
	files := make([]io.Reader, len(names))
	for i, name := range names {
		if name == "-" {
			files[i] = stdin
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	t, err := trial.New(ctx, c)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted")
	} else if err != nil {
		return err
	}
	defer t.Close()
	var failed error
	for i, f := range files {
		r, err := t.Message(ctx, e, f)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			err = fmt.Errorf("%s could not be tried: %w", names[i], err)
			if failed != nil {
				fmt.Fprintln(os.Stderr, "postern:", failed)
			}
			failed = err
			continue
		}
		if asJSON {
			err = r.WriteJSON(out)
		} else {
			err = r.WriteText(out, names[i])
		}
		if err != nil {
			return err
		}
	}
	return failed
}
