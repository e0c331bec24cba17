package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/admin"
)

// running is the client for the gateway that runs with a configuration.
func running(ctx context.Context, file string) (*admin.Client, error) {
	c, err := load(file)
	if err != nil {
		return nil, err
	}
	client, err := admin.Dial(ctx, gateway.ControlSocket(c))
	if err != nil {
		return nil, fmt.Errorf("no gateway of this configuration can be asked: start it with postern serve (%w)", err)
	}
	return client, nil
}

// pluginSteerCommands look at the plugins of the running gateway and steer them.
func pluginSteerCommands(file *string) []*cobra.Command {
	return []*cobra.Command{
		pluginList(file, "list", "List the plugins of the running gateway", "  postern plugin list\n  postern plugin list --json", args(cobra.NoArgs)),
		pluginList(file, "status [NAME]", "Show all that is known of a plugin, or of each", "  postern plugin status\n  postern plugin status dkim", args(cobra.MaximumNArgs(1))),
		pluginChange(file, admin.RestartPlugin, "Replace a plugin's process",
			"Replace a plugin's process: the new one is started beside the old one, and when it is\nhealthy it takes over; the old one finishes what it has. If that fails the old one goes on."),
		pluginChange(file, admin.DisablePlugin, "Take a plugin out of use, until it is enabled or the gateway starts anew",
			"Take a plugin out of use, until it is enabled or the gateway starts anew.\nIt counts as down: its on_failure decides about messages."),
		pluginChange(file, admin.EnablePlugin, "Take a disabled plugin back into use", "Take a disabled plugin back into use."),
	}
}

func pluginList(file *string, use, short, example string, check cobra.PositionalArgs) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: use, Short: short, Example: example, Args: check}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		client, err := running(cmd.Context(), *file)
		if err != nil {
			return err
		}
		list, err := client.Plugins(cmd.Context())
		if err != nil {
			return err
		}
		if len(names) == 1 {
			if list, err = only(list, names[0]); err != nil {
				return err
			}
		}
		out := cmd.OutOrStdout()
		switch {
		case asJSON:
			return terminal.JSON(out).Encode(list)
		case len(list) == 0:
			fmt.Fprintln(out, "No plugin is configured.")
			return nil
		case cmd.Name() == "status":
			for _, p := range list {
				printPlugin(out, p)
			}
			return nil
		}
		return printPlugins(out, list)
	}
	return cmd
}

func only(list []admin.PluginStatus, name string) ([]admin.PluginStatus, error) {
	for _, p := range list {
		if p.Name == name {
			return []admin.PluginStatus{p}, nil
		}
	}
	return nil, fmt.Errorf("there is no plugin %q: see postern plugin list", name)
}

func printPlugins(out io.Writer, list []admin.PluginStatus) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tPID\tRESTARTS\tCALLS\tFAILURES\tUNSCANNED\tSINCE\tREASON")
	for _, p := range list {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", p.Name, p.State, p.Pid, p.Restarts, p.Calls, p.Failures,
			p.NoVerdict.Unscanned, time.Since(p.Since).Round(time.Second), terminal.Printable(p.Reason))
	}
	return w.Flush()
}

func printPlugin(w io.Writer, p admin.PluginStatus) {
	line := func(key string, value any) { fmt.Fprintf(w, "  %-11s %v\n", key, value) }
	fmt.Fprintf(w, "%s: %s\n", p.Name, p.State)
	if p.Reason != "" {
		line("reason", terminal.Printable(p.Reason))
	}
	line("version", terminal.Printable(p.Version))
	line("process", p.Pid)
	line("since", p.Since.Local().Format(time.DateTime))
	line("restarts", p.Restarts)
	line("calls", p.Calls)
	line("failures", p.Failures)
	if p.OnFailure != "" {
		line("on_failure", p.OnFailure)
	}
	if len(p.Owns) > 0 {
		line("owns", terminal.Printable(strings.Join(p.Owns, ", ")))
	}
	if text := counted(amount{p.Verdicts.Rejected, "rejected"}, amount{p.Verdicts.Deferred, "deferred"},
		amount{p.Verdicts.Discarded, "discarded"}, amount{p.Verdicts.Quarantined, "quarantined"}); text != "" {
		line("verdicts", text)
	}
	line("no verdict", choices(p.NoVerdict))
	if p.NoAnswer != (admin.Choices{}) {
		line("no answer", choices(p.NoAnswer))
	}
	breaker := "closed"
	if p.Breaker {
		breaker = "open: it died again and again"
	}
	line("breaker", breaker)
	for _, name := range slices.Sorted(maps.Keys(p.Counters)) {
		line("counted", fmt.Sprintf("%s %d", name, p.Counters[name]))
	}
}

// choices says what on_failure has decided. That nothing went on unscanned is worth to be said.
func choices(c admin.Choices) string {
	text := fmt.Sprintf("%d unscanned", c.Unscanned)
	if more := counted(amount{c.Deferred, "deferred"}, amount{c.Rejected, "rejected"}, amount{c.Parked, "parked"}); more != "" {
		text += ", " + more
	}
	return text
}

type amount struct {
	n    int64
	what string
}

// counted lists what there is some of.
func counted(all ...amount) string {
	var parts []string
	for _, c := range all {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(parts, ", ")
}

func pluginChange(file *string, change admin.PluginChange, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:     string(change) + " NAME",
		Short:   short,
		Long:    long,
		Example: fmt.Sprintf("  postern plugin %s dkim", change),
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			client, err := running(cmd.Context(), *file)
			if err != nil {
				return err
			}
			if err := client.SteerPlugin(cmd.Context(), a[0], change); err != nil {
				return err
			}
			list, err := client.Plugins(cmd.Context())
			if err == nil {
				list, err = only(list, a[0])
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", a[0], list[0].State)
			return nil
		},
	}
}
