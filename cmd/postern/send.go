package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

func sendCommand(file *string) *cobra.Command {
	var from string
	var to []string
	var wait time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "send [FILE]",
		Short: "Send a message through the running gateway and say where it went",
		Long: "Send a message through the running gateway and say where it went.\n\n" +
			"FILE is a message with its header, - is standard input; without it a sample is sent.\n" +
			"Without --to it goes to the postmaster.\n\n" +
			"Exit code 1: the gateway refused it, or a recipient failed for good; what is deferred or held is neither.",
		Example: "  postern send --config config.example.toml\n  postern send --from me@example.org --to you@example.org message.eml",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := load(*file)
			if err != nil {
				return err
			}
			s := submission{from: from, to: to, wait: wait, out: cmd.OutOrStdout(), json: asJSON}
			if len(a) > 0 {
				s.file = a[0]
			}
			return s.run(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "the reverse-path (default: you, at the gateway)")
	cmd.Flags().StringArrayVar(&to, "to", nil, "a recipient; may be given again")
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long to wait for the delivery")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the events, one JSON object a line")
	return cmd
}

// submission is one run of the command.
type submission struct {
	from string
	to   []string
	file string
	wait time.Duration
	json bool
	out  io.Writer
}

func (s *submission) run(ctx context.Context, c *config.Config) error {
	client, err := admin.Dial(ctx, gateway.ControlSocket(c))
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("only root and the user of the gateway may talk to it: %w", err)
	} else if err != nil {
		return fmt.Errorf("no gateway is running for this configuration: start it with postern serve (%w)", err)
	}
	from, to, err := s.paths(c)
	if err != nil {
		return err
	}
	message, err := s.message(c, from, to)
	if err != nil {
		return err
	}
	sub, err := client.Submit(ctx, from, to, bytes.NewReader(gateway.CRLF(message)))
	if err != nil {
		return err
	}
	if !sub.Reply.Success() {
		return fmt.Errorf("the gateway refused the message: %s", sub.Reply.Error())
	}
	if !s.json {
		fmt.Fprintln(s.out, sub.Reply.Error())
	}
	return s.follow(ctx, client, sub.ID)
}

func (s *submission) paths(c *config.Config) (from mail.Path, to []mail.Path, err error) {
	if s.from == "" {
		name := "postern"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		s.from = name + "@" + c.Hostname.String()
	}
	if from, err = mail.ParsePath(strings.Trim(s.from, "<>")); err != nil {
		return from, nil, usageError{fmt.Errorf("--from %q: %w", s.from, err)}
	}
	for _, t := range s.to {
		p, err := mail.ParsePath(t)
		if err != nil || p.IsZero() {
			return from, nil, usageError{fmt.Errorf("--to %q is not an address", t)}
		}
		to = append(to, p)
	}
	if len(to) == 0 {
		to = []mail.Path{c.Postmaster}
	}
	return from, to, nil
}

func (s *submission) message(c *config.Config, from mail.Path, to []mail.Path) ([]byte, error) {
	switch s.file {
	case "":
		var b bytes.Buffer
		fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nSubject: A first message through Postern\r\n", from, to[0])
		fmt.Fprintf(&b, "Date: %s\r\n", time.Now().Format("Mon, 2 Jan 2006 15:04:05 -0700"))
		fmt.Fprintf(&b, "Message-ID: <%s@%s>\r\n\r\n", rand.Text(), c.Hostname)
		fmt.Fprintf(&b, "This is a test message. It went through the gateway %s.\r\n", c.Hostname)
		return b.Bytes(), nil
	case "-":
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(s.file)
}

// follow prints what happens to the message until every recipient has had its first attempt,
// or waits for something else.
func (s *submission) follow(ctx context.Context, client *admin.Client, id string) error {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	shown, failed := 0, 0
	for {
		settled, err := attempted(ctx, client, id) // before the story is read, so that it is complete
		if err != nil && ctx.Err() == nil {
			return err
		}
		events, err := client.Story(ctx, id)
		if err != nil && ctx.Err() == nil {
			return err
		}
		for _, e := range events[min(shown, len(events)):] {
			s.print(e)
			if e.Type == trace.Failed {
				failed++
			}
		}
		shown = max(shown, len(events))
		if settled && failed > 0 {
			return fmt.Errorf("%s failed", count(failed, "recipient"))
		}
		if settled {
			return nil
		}
		select {
		case <-ctx.Done():
			fmt.Fprintf(s.out, "still queued: see postern queue show %s\n", id)
			return nil
		case <-tick.C:
		}
	}
}

// attempted reports whether nothing of a message waits for its first attempt any more.
func attempted(ctx context.Context, client *admin.Client, id string) (bool, error) {
	versions, err := client.Show(ctx, id)
	if errors.Is(err, admin.ErrNotFound) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	for _, v := range versions {
		for _, r := range v.Recipients {
			if r.Active || r.State == "pending" && r.Attempts == 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

func (s *submission) print(e trace.Event) {
	if s.json {
		terminal.JSON(s.out).Encode(e)
		return
	}
	line := fmt.Sprintf("%s  %-9s", e.Time.Local().Format("15:04:05.000"), e.Type)
	for _, part := range []string{e.Plugin, e.Action, e.To} {
		if part != "" {
			line += " " + part
		}
	}
	if e.NextHop != "" {
		line += " via " + e.NextHop
	}
	if !e.Status.IsZero() {
		line += ": " + e.Status.Error()
	}
	if e.Reason != "" {
		line += " (" + e.Reason + ")"
	}
	fmt.Fprintln(s.out, terminal.Printable(line))
}
