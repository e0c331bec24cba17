package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
)

func quarantineCommand(file *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Mail that plugins want held: look at it, let it go, delete it",
		Long: "Mail that plugins want held: look at it, let it go, delete it.\n\n" +
			"It is kept for quarantine.keep and then deleted. What is released goes on as it is, with its\n" +
			"signatures; plugins that have seen it are not asked again.\n\n" +
			"The commands talk to the running gateway; when none runs they work on the queue on disk.",
		Args: func(_ *cobra.Command, a []string) error { return unknownCommand(a) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(quarantineList(file), quarantineShow(file), quarantineChange(file, admin.Release, "Let messages go on"),
		quarantineChange(file, admin.Delete, "Delete messages, telling nobody"), quarantineAllow(file), quarantineAllowed(file))
	return cmd
}

func quarantineList(file *string) *cobra.Command {
	var s admin.Search
	var since string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what is held, a line a message, oldest first",
		Example: "  postern quarantine list --to alice@example.org --since 1d\n  postern quarantine list --search invoice --json | jq -r .id",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if s.Since, err = sinceTime(since); err != nil {
				return usageError{err}
			}
			q, done, err := steer(cmd.Context(), *file)
			if err != nil {
				return err
			}
			defer done()
			if asJSON {
				enc := terminal.JSON(cmd.OutOrStdout())
				return q.Quarantine(cmd.Context(), s, func(h admin.Quarantined) bool { return enc.Encode(h) == nil })
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			n := 0
			err = q.Quarantine(cmd.Context(), s, func(h admin.Quarantined) bool {
				if n++; n == 1 {
					fmt.Fprintln(w, "ID\tHELD\tEXPIRES\tPLUGIN\tFROM\tTO\tSUBJECT\tREASON")
				}
				_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t<%s>\t%s\t%s\t%s\n", h.ID, h.Held.Local().Format("2006-01-02 15:04"), h.Expires.Local().Format(time.DateOnly),
					terminal.Printable(h.Plugin), terminal.Printable(h.From), terminal.Printable(several(h.Recipients)), terminal.Printable(short(h.Subject, 60)), terminal.Printable(short(h.Reason, 80)))
				return err == nil
			})
			if err == nil && n == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "Nothing of that kind is in quarantine.")
			}
			return errors.Join(err, w.Flush())
		},
	}
	cmd.Flags().StringVar(&s.Text, "search", "", "with this text in subject, author, addresses, Message-ID, reason or id")
	cmd.Flags().StringVar(&s.From, "from", "", "with this text in reverse-path or author")
	cmd.Flags().StringVar(&s.Recipient, "to", "", "with this text in a recipient")
	cmd.Flags().StringVar(&s.Plugin, "plugin", "", "held by this plugin")
	cmd.Flags().StringVar(&since, "since", "", `held since: a date ("2026-05-21"), a time (RFC 3339), or how long ago ("90m", "7d")`)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

// sinceTime is a moment in the past; "" is the zero Time.
func sinceTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t, nil
	}
	ago, err := config.ParseDuration(s)
	if err != nil {
		return time.Time{}, fmt.Errorf(`--since %q: write it like "2026-05-21", "2026-05-21T08:00:00Z", "90m" or "7d"`, s)
	}
	return time.Now().Add(-time.Duration(ago)), nil
}

func several(list []string) string {
	if len(list) > 2 {
		return fmt.Sprintf("%s and %d more", list[0], len(list)-1)
	}
	return strings.Join(list, ", ")
}

// short cuts a text at n runes.
func short(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func quarantineShow(file *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a message: envelope, who wants it held and why, header, the beginning of its text",
		Example: "  postern quarantine show 0c1f3k9w2m4xq",
		Args:    args(cobra.ExactArgs(1)),
		RunE: inQueue(file, func(cmd *cobra.Command, q steering, a []string) error {
			hs, err := q.ShowQuarantined(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			if asJSON {
				return terminal.JSON(cmd.OutOrStdout()).Encode(hs)
			}
			for _, h := range hs {
				printQuarantined(cmd.OutOrStdout(), h)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func printQuarantined(w io.Writer, h admin.Quarantined) {
	line := func(format string, a ...any) { fmt.Fprintln(w, terminal.Printable(fmt.Sprintf(format, a...))) }
	line("%s  %s, %d bytes, held since %s, until %s", h.ID, h.Origin, h.Size, h.Held.Local().Format(time.DateTime), h.Expires.Local().Format(time.DateTime))
	if h.Family != h.ID {
		line("  a version of %s", h.Family)
	}
	line("  by %s: %s", h.Plugin, h.Reason)
	line("  from <%s>", h.From)
	if h.Client != "" {
		line("  client %s", h.Client)
	}
	for i, to := range h.Recipients {
		if to != h.Originals[i] {
			to += "> as <" + h.Originals[i]
		}
		line("  to <%s>", to)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Scores)) {
		line("  score %s = %g", name, h.Scores[name])
	}
	for _, name := range slices.Sorted(maps.Keys(h.Notes)) {
		line("  note %s = %s", name, short(h.Notes[name], 500))
	}
	for _, text := range []string{h.Header, h.Text} {
		for l := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
			line("  | %s", strings.ReplaceAll(strings.TrimRight(l, "\r"), "\t", "    "))
		}
		line("  |")
	}
}

func quarantineChange(file *string, change admin.Change, what string) *cobra.Command {
	return &cobra.Command{
		Use:     string(change) + " ID...",
		Short:   what,
		Example: fmt.Sprintf("  postern quarantine %s 0c1f3k9w2m4xq", change),
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: inQueue(file, func(cmd *cobra.Command, q steering, ids []string) error {
			n, err := q.ChangeQuarantined(cmd.Context(), change, ids)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", change, count(n, "recipient"))
			return nil
		}),
	}
}

func quarantineAllow(file *string) *cobra.Command {
	var senderDomain, forDomain bool
	cmd := &cobra.Command{
		Use:   "allow-sender ID",
		Short: "Let a message go on, and do not hold more of its sender as spam for its recipients",
		Long: "Let a message go on, and do not hold more of its sender as spam for its recipients.\n\n" +
			"The sender is the reverse-path. Where the plugin mailauth runs, only mail counts for which it has found\n" +
			"that the sender's domain stands behind it; a forged one gains nothing. What plugins hold because it\n" +
			"is dangerous, and not because it is unwanted, they hold all the same.",
		Example: "  postern quarantine allow-sender 0c1f3k9w2m4xq\n  postern quarantine allow-sender 0c1f3k9w2m4xq --sender-domain --for-domain",
		Args:    args(cobra.ExactArgs(1)),
		RunE: inQueue(file, func(cmd *cobra.Command, q steering, a []string) error {
			hs, err := q.ShowQuarantined(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			err = withDirectory(*file, func(d *directory.Directory) error {
				for _, h := range hs {
					if err := allowSender(cmd, d, h, senderDomain, forDomain); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			n, err := q.ChangeQuarantined(cmd.Context(), admin.Release, a)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "release: %s\n", count(n, "recipient"))
			return nil
		}),
	}
	cmd.Flags().BoolVar(&senderDomain, "sender-domain", false, "whoever sends from the reverse-path's domain (where each message of a list has a reverse-path of its own)")
	cmd.Flags().BoolVar(&forDomain, "for-domain", false, "for everybody in the recipients' domains")
	return cmd
}

// allowSender notes the sender of a message for each of its recipients that is ours.
func allowSender(cmd *cobra.Command, d *directory.Directory, h admin.Quarantined, senderDomain, forDomain bool) error {
	sender := h.From
	if sender == "" {
		return errors.New("the message has the null reverse-path, as every bounce has: release it, but allow nobody")
	}
	if senderDomain {
		sender = sender[strings.LastIndexByte(sender, '@'):]
	}
	allowed := 0
	var failed error
	for i := range h.Recipients {
		for _, to := range slices.Compact([]string{h.Originals[i], h.Recipients[i]}) {
			if forDomain {
				to = to[strings.LastIndexByte(to, '@'):]
			}
			switch err := d.AllowSender(cmd.Context(), sender, to); {
			case err == nil:
				allowed++
				fmt.Fprintln(cmd.OutOrStdout(), terminal.Printable(fmt.Sprintf("allowed: %s for %s", sender, to)))
			case errors.Is(err, directory.ErrUnknown): // an alias leads elsewhere
				failed = err
			default:
				return err
			}
		}
	}
	if allowed == 0 {
		return failed
	}
	if unproven(h.Notes) {
		fmt.Fprintln(cmd.OutOrStdout(), "note: mailauth found nothing that showed that this message was from there (neither SPF nor DKIM); others like it will be held all the same")
	}
	return nil
}

// unproven reports whether a plugin looked for who a message is from, and did not find out.
func unproven(notes map[string]string) bool {
	looked, found := false, false
	for name, value := range notes {
		looked = looked || strings.HasSuffix(name, "/from_domain") || strings.HasSuffix(name, "/dmarc")
		found = found || strings.HasSuffix(name, "/authenticated") && value != ""
	}
	return looked && !found
}

func quarantineAllowed(file *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "allowed",
		Short: "Senders whose mail is not held as spam",
		Args:  func(_ *cobra.Command, a []string) error { return unknownCommand(a) },
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON bool
	list := &cobra.Command{
		Use:     "list",
		Short:   "List them, by recipient",
		Example: "  postern quarantine allowed list",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withDirectory(*file, func(d *directory.Directory) error {
				all, err := d.AllowedSenders(cmd.Context())
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				for i, a := range all {
					if asJSON {
						if err := terminal.JSON(cmd.OutOrStdout()).Encode(a); err != nil {
							return err
						}
						continue
					}
					if i == 0 {
						fmt.Fprintln(w, "RECIPIENT\tSENDER\tSINCE")
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", terminal.Printable(a.Recipient), terminal.Printable(a.Sender), a.Added.Local().Format(time.DateTime))
				}
				if len(all) == 0 && !asJSON {
					fmt.Fprintln(w, "Nobody is allowed anything.")
				}
				return w.Flush()
			})
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	remove := &cobra.Command{
		Use:     "remove SENDER RECIPIENT",
		Short:   "Take it back; both as they are listed",
		Example: "  postern quarantine allowed remove news@example.net alice@example.org",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withDirectory(*file, func(d *directory.Directory) error {
				if err := d.DisallowSender(cmd.Context(), a[0], a[1]); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), terminal.Printable(fmt.Sprintf("no longer allowed: %s for %s", a[0], a[1])))
				return nil
			})
		},
	}
	cmd.AddCommand(list, remove)
	return cmd
}
