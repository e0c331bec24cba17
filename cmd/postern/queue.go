package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/queue/local"
)

// steering is a queue, in a running gateway or in the data directory of a stopped one.
type steering interface {
	List(ctx context.Context, class string, yield func(admin.Recipient) bool) error
	Show(ctx context.Context, id string) ([]admin.Message, error)
	Summary(ctx context.Context) ([]admin.Cause, error)
	Change(ctx context.Context, c admin.Change, s admin.Selection) (int, error)
	Quarantine(ctx context.Context, s admin.Search, yield func(admin.Quarantined) bool) error
	ShowQuarantined(ctx context.Context, id string) ([]admin.Quarantined, error)
	ChangeQuarantined(ctx context.Context, c admin.Change, ids []string) (int, error)
}

// steer finds the queue of a configuration: the running gateway's, else the one on disk.
func steer(ctx context.Context, file string) (steering, func(), error) {
	c, err := load(file)
	if err != nil {
		return nil, nil, err
	}
	if client, err := admin.Dial(ctx, gateway.ControlSocket(c)); err == nil {
		return client, func() {}, nil
	}
	if _, err := os.Stat(c.DataDir); err != nil {
		return nil, nil, fmt.Errorf("no gateway is running and there is no data directory %s yet", c.DataDir)
	}
	q, done, err := gateway.OpenQueue(c)
	if err != nil {
		return nil, nil, err
	}
	return q, done, nil
}

// inQueue runs f with the queue of a configuration.
func inQueue(file *string, f func(cmd *cobra.Command, q steering, a []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, a []string) error {
		q, done, err := steer(cmd.Context(), *file)
		if err != nil {
			return err
		}
		defer done()
		return f(cmd, q, a)
	}
}

// classFlag is the flag that narrows a command down to a class of mail.
func classFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().Var((*className)(to), "class", "only this class of mail: mail, copy (of a plugin, as bcc), journal, or report (of the gateway itself)")
}

// className is the name of a class of mail, or "" for all.
type className string

func (c *className) String() string { return string(*c) }
func (c *className) Type() string   { return "class" }

func (c *className) Set(name string) error {
	_, err := queue.ParseClass(name)
	*c = className(name)
	return err
}

func queueCommand(file *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look at queued mail, and steer it",
		Long:  "Look at queued mail, and steer it.\n\nThe commands talk to the running gateway; when none runs they work on the queue on disk.",
		Args:  func(_ *cobra.Command, a []string) error { return unknownCommand(a) },
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(queueList(file), queueShow(file), queueSummary(file),
		queueChange(file, admin.Retry, "Attempt pending or parked mail now", true),
		queueChange(file, admin.Hold, "Keep mail until it is released", true),
		queueChange(file, admin.Release, "Let held mail go on", true),
		queueChange(file, admin.Delete, "Remove mail from the queue, telling nobody", true))
	return cmd
}

func queueList(file *string) *cobra.Command {
	var asJSON bool
	var class string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what is queued, a line a recipient, oldest first",
		Example: "  postern queue list\n  postern queue list --json | jq -r 'select(.state==\"held\").id'\n  postern queue list --class journal",
		Args:    args(cobra.NoArgs),
		RunE: inQueue(file, func(cmd *cobra.Command, q steering, _ []string) error {
			if asJSON {
				enc := terminal.JSON(cmd.OutOrStdout())
				return q.List(cmd.Context(), class, func(r admin.Recipient) bool { return enc.Encode(r) == nil })
			}
			return printList(cmd, q, class)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	classFlag(cmd, &class)
	return cmd
}

func printList(cmd *cobra.Command, q steering, class string) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	n := 0
	err := q.List(cmd.Context(), class, func(r admin.Recipient) bool {
		if n == 0 {
			fmt.Fprintln(w, "ID\tSTATE\tCLASS\tATTEMPTS\tNEXT\tFROM\tRECIPIENT\tREASON")
		}
		n++
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t<%s>\t%s\t%s\n", r.ID, stateText(r), r.Class, r.Attempts, nextText(r), terminal.Printable(r.From), terminal.Printable(r.Recipient), terminal.Printable(r.Reason))
		return err == nil
	})
	switch {
	case err == nil && n == 0 && class != "":
		fmt.Fprintf(cmd.OutOrStdout(), "The queue has nothing of class %s.\n", class)
	case err == nil && n == 0:
		fmt.Fprintln(cmd.OutOrStdout(), "The queue is empty.")
	}
	return errors.Join(err, w.Flush())
}

func stateText(r admin.Recipient) string {
	if r.Active {
		return "active"
	}
	return r.State
}

func nextText(r admin.Recipient) string {
	if r.Next == nil || r.Active {
		return "-"
	}
	wait := time.Until(*r.Next).Round(time.Second)
	if wait <= 0 {
		return "now"
	}
	return "in " + wait.String()
}

// count is a number with what it counts.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func queueShow(file *string) *cobra.Command {
	var asJSON, raw bool
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a queued message: recipients, replies, header",
		Long:    "Show a queued message: recipients, replies, header.\n\nWith --raw the queue's files are read as they are, also beside a running gateway: every frame that mentions the message.",
		Example: "  postern queue show 0c1f3k9w2m4xq\n  postern queue show --raw 0c1f3k9w2m4xq",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if raw {
				return showRaw(cmd.OutOrStdout(), *file, a[0])
			}
			q, done, err := steer(cmd.Context(), *file)
			if err != nil {
				return err
			}
			defer done()
			ms, err := q.Show(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			if asJSON {
				return terminal.JSON(cmd.OutOrStdout()).Encode(ms)
			}
			for _, m := range ms {
				printMessage(cmd.OutOrStdout(), m)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&raw, "raw", false, "read the queue's files without a gateway")
	return cmd
}

func printMessage(w io.Writer, m admin.Message) {
	fmt.Fprintf(w, "%s  %s, %d bytes, received %s\n", m.ID, m.Origin, m.Size, m.Received.Local().Format(time.DateTime))
	if m.Family != m.ID {
		fmt.Fprintf(w, "  a version of %s\n", m.Family)
	}
	if m.Copy {
		fmt.Fprintln(w, "  a copy made by a plugin")
	}
	fmt.Fprintf(w, "  class: %s\n", m.Class)
	if len(m.Plugins) > 0 {
		fmt.Fprintf(w, "  plugins done: %s\n", strings.Join(m.Plugins, ", "))
	}
	for _, r := range m.Recipients {
		fmt.Fprintf(w, "  <%s> -> %s  %s, %d attempts, next %s, by %s\n", terminal.Printable(r.From), terminal.Printable(r.Recipient), stateText(r), r.Attempts, nextText(r), r.NextHop)
		if r.Reason != "" {
			fmt.Fprintf(w, "      %s\n", terminal.Printable(r.Reason))
		}
	}
	if m.Stack != "" {
		fmt.Fprintln(w, "  what the plugin said when it died:")
		for line := range strings.SplitSeq(m.Stack, "\n") {
			fmt.Fprintf(w, "  ! %s\n", terminal.Printable(strings.ReplaceAll(line, "\t", "    ")))
		}
	}
	for line := range strings.SplitSeq(strings.TrimRight(m.Header, "\r\n"), "\n") {
		fmt.Fprintf(w, "  | %s\n", terminal.Printable(strings.ReplaceAll(strings.TrimRight(line, "\r"), "\t", "    ")))
	}
}

func queueSummary(file *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "summary",
		Short:   "Group what waits by root cause and class",
		Example: "  postern queue summary",
		Args:    args(cobra.NoArgs),
		RunE: inQueue(file, func(cmd *cobra.Command, q steering, _ []string) error {
			causes, err := q.Summary(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return terminal.JSON(cmd.OutOrStdout()).Encode(causes)
			}
			if len(causes) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "The queue is empty.")
				return nil
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "COUNT\tSTATE\tCLASS\tOLDEST\tNEXT HOP\tREASON")
			for _, c := range causes {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", c.Count, c.State, c.Class, time.Since(c.Oldest).Round(time.Second), c.NextHop, terminal.Printable(c.Reason))
			}
			return w.Flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func queueChange(file *string, change admin.Change, short string, all bool) *cobra.Command {
	var sel admin.Selection
	cmd := &cobra.Command{
		Use:     string(change) + " ID...",
		Short:   short,
		Example: fmt.Sprintf("  postern queue %s 0c1f3k9w2m4xq", change),
		RunE: func(cmd *cobra.Command, ids []string) error {
			sel.IDs = ids
			if (len(ids) == 0) == !sel.All {
				return usageError{fmt.Errorf("name the queue ids to %s, or say --all", change)}
			}
			q, done, err := steer(cmd.Context(), *file)
			if err != nil {
				return err
			}
			defer done()
			n, err := q.Change(cmd.Context(), change, sel)
			if err != nil {
				return err
			}
			note := ""
			if n == 0 && change == admin.Retry && !sel.All {
				note = " (held mail goes on after a release; what is being attempted needs no retry)"
			} else if n == 0 && change == admin.Release && !sel.All {
				note = " (it is not held)"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s%s\n", change, count(n, "recipient"), note)
			return nil
		},
	}
	if all {
		cmd.Flags().BoolVar(&sel.All, "all", false, "everything in the queue that it applies to")
		cmd.Example += fmt.Sprintf("\n  postern queue %[1]s --all\n  postern queue %[1]s --all --class journal", change)
	}
	classFlag(cmd, &sel.Class)
	if change == admin.Hold {
		cmd.Flags().StringVar(&sel.Reason, "reason", "", "why, for those who look later")
	}
	return cmd
}

func showRaw(w io.Writer, file, id string) error {
	c, err := load(file)
	if err != nil {
		return err
	}
	parsed, err := queue.ParseID(id)
	if err != nil {
		return usageError{err}
	}
	lines := &printableLines{w: w}
	err = local.Dump(lines, disk.OS{}, gateway.QueueDir(c), parsed)
	return errors.Join(err, lines.flush())
}

// printableLines writes text line by line, each as [terminal.Printable] makes it.
type printableLines struct {
	w    io.Writer
	rest []byte // of a line that has not ended
}

func (l *printableLines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if _, err := fmt.Fprintln(l.w, terminal.Printable(string(line))); err != nil {
			return 0, err
		}
		l.rest = rest
	}
}

func (l *printableLines) flush() error {
	_, err := io.WriteString(l.w, terminal.Printable(string(l.rest)))
	return err
}
