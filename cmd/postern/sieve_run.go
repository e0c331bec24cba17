package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk/mail"
)

// sieveTrial is what the flags of "sieve run" say.
type sieveTrial struct {
	from, to, includes, delimiter, now string
	mailboxes                          []string
	spam, virus                        int
	explain, json                      bool
}

func sieveRunCommand() *cobra.Command {
	t := sieveTrial{}
	cmd := &cobra.Command{
		Use:   "run SCRIPT MESSAGE --from ADDRESS --to ADDRESS",
		Short: "Show what a script would do with a message",
		Long: `Show what a script would do with a message. Nothing is done, and no gateway is needed. "-" is standard input.
Exit code 0: the script compiled; 1: it did not; 2: wrong usage.`,
		Example: `  postern sieve run filter.sieve message.eml --from alice@example.org --to bob@example.net --explain
  postern sieve run filter.sieve message.eml --from a@example.org --to b@example.net --mailbox Work --mailbox 'Spam=\Junk' --json`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error { return t.run(cmd, a[0], a[1]) },
	}
	f := cmd.Flags()
	f.StringVar(&t.from, "from", "", "reverse-path; empty or <>: the null one")
	f.StringVar(&t.to, "to", "", "recipient")
	f.StringArrayVar(&t.mailboxes, "mailbox", nil, "a mailbox that exists, NAME or NAME=\\Special-Use; may be repeated")
	f.StringVar(&t.includes, "include-dir", "", "folder with personal/NAME.sieve and global/NAME.sieve")
	f.StringVar(&t.delimiter, "delimiter", "+", "what separates user and detail in an address")
	f.IntVar(&t.spam, "spam-percent", -1, "how sure the spam filter is, 0 to 100; below 0: not tested")
	f.IntVar(&t.virus, "virus-level", 0, "what the virus filter says, 1 (clean) to 5 (infected); 0: not tested")
	f.StringVar(&t.now, "now", "", "time of the run, as in 2026-11-22T15:04:05+01:00; default: now")
	f.BoolVar(&t.explain, "explain", false, "list the steps")
	f.BoolVar(&t.json, "json", false, "print one JSON object")
	return cmd
}

func (t *sieveTrial) run(cmd *cobra.Command, script, message string) error {
	env, err := t.env()
	if err == nil && !cmd.Flags().Changed("from") {
		err = errors.New("--from: name the sender; <> is the null one")
	}
	if err != nil {
		return usageError{err}
	}
	src, err := readInput(cmd, script)
	if err != nil {
		return usageError{err}
	}
	raw, err := readInput(cmd, message)
	if err != nil {
		return usageError{err}
	}
	out := sieveOutcome{Actions: []map[string]any{}}
	s, fault := engine.Compile(src, engine.Options{})
	if fault != nil {
		out.Error = placed(fault)
		if err := out.print(cmd.OutOrStdout(), t.json); err != nil {
			return err
		}
		return errors.New("the script has faults")
	}
	result, err := s.Run(cmd.Context(), sieveMessage(gateway.CRLF(raw)), env)
	if err != nil {
		return err
	}
	if err := out.take(cmd.Context(), result, env); err != nil {
		return err
	}
	return out.print(cmd.OutOrStdout(), t.json)
}

// readInput reads a file, or standard input for "-".
func readInput(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	return os.ReadFile(name)
}

func (t *sieveTrial) env() (*engine.Env, error) {
	env := &engine.Env{Now: time.Now(), Delimiter: t.delimiter, Spam: t.spam, Virus: t.virus, Explain: t.explain, Script: t.script,
		Items: map[string]string{"name": "Postern", "version": gateway.Version(), "location": "MDA", "phase": "during"}}
	if t.now != "" {
		now, err := time.Parse(time.RFC3339, t.now)
		if err != nil {
			return nil, fmt.Errorf("--now %q is no time, as 2026-11-22T15:04:05Z is", t.now)
		}
		env.Now = now
	}
	from, err := mail.ParsePath(strings.Trim(t.from, "<>"))
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	to, err := mail.ParsePath(strings.Trim(t.to, "<>"))
	if err == nil && to.IsZero() {
		err = errors.New("name the recipient")
	}
	if err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	if t.spam > 100 || t.virus < 0 || t.virus > 5 {
		return nil, errors.New("--spam-percent is 100 at most, --virus-level from 0 to 5")
	}
	env.From, env.To = from.String(), to.String()
	env.Items["domain"] = to.Domain.String()
	env.Items["host"], _ = os.Hostname()
	boxes := make(trialMailboxes)
	for _, m := range t.mailboxes {
		name, use, _ := strings.Cut(m, "=")
		boxes[name] = use
	}
	env.Mailboxes = boxes
	return env, nil
}

// script finds a script to include below --include-dir.
func (t *sieveTrial) script(_ context.Context, location, name string) ([]byte, error) {
	if t.includes == "" {
		return nil, engine.ErrNoScript
	}
	src, err := os.ReadFile(filepath.Join(t.includes, location, name+".sieve"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, engine.ErrNoScript
	}
	return src, err
}

// trialMailboxes are those of --mailbox: special uses by name.
type trialMailboxes map[string]string

func (m trialMailboxes) Exists(_ context.Context, mailbox string) (bool, error) {
	_, ok := m[mailbox]
	return ok, nil
}

func (m trialMailboxes) SpecialUse(_ context.Context, attribute string) (string, error) {
	for name, use := range m {
		if strings.EqualFold(use, attribute) {
			return name, nil
		}
	}
	return "", nil
}

func (m trialMailboxes) Metadata(context.Context, string, string) (string, bool, error) {
	return "", false, nil
}

// sieveMessage is a message in wire form for the engine.
func sieveMessage(raw []byte) *engine.Message {
	h, body := mail.SplitMessage(raw)
	return &engine.Message{Header: h, Body: mail.InlineBody(body)}
}

// sieveFault is a fault in the output.
type sieveFault struct {
	Line    int    `json:"line"`
	Message string `json:"message"`
}

func placed(err error) *sieveFault {
	var fault *engine.Error
	if !errors.As(err, &fault) {
		return &sieveFault{Message: err.Error()}
	}
	if fault.Script != "" {
		return &sieveFault{fault.Line, "in the script " + fault.Script + ": " + fault.Message}
	}
	return &sieveFault{fault.Line, fault.Message}
}

// sieveOutcome is the output of "sieve run".
type sieveOutcome struct {
	Error        *sieveFault      `json:"error"`
	RuntimeError *sieveFault      `json:"runtime_error"`
	Actions      []map[string]any `json:"actions"`
	Headers      [][2]string      `json:"headers,omitempty"`
	BodyChanged  bool             `json:"body_changed,omitempty"`
	Steps        []sieveStep      `json:"steps,omitempty"`
}

type sieveStep struct {
	Script string `json:"script,omitempty"`
	Line   int    `json:"line"`
	Text   string `json:"text"`
}

func (o *sieveOutcome) take(ctx context.Context, r *engine.Result, env *engine.Env) error {
	if r.Fault != nil {
		o.RuntimeError = placed(r.Fault)
	}
	for _, a := range r.Actions {
		if a.SpecialUse != "" {
			if box, _ := env.Mailboxes.SpecialUse(ctx, a.SpecialUse); box != "" {
				a.Mailbox = box
			}
		}
		o.Actions = append(o.Actions, describeAction(a))
	}
	if r.Edited != nil {
		for _, f := range r.Edited.Header.Fields {
			o.Headers = append(o.Headers, [2]string{f.Name, f.Value()})
		}
	}
	o.BodyChanged = r.NewBody
	for _, s := range r.Steps {
		o.Steps = append(o.Steps, sieveStep{s.Script, s.Line, s.Text})
	}
	return nil
}

// describeAction has the fields that apply to an action.
func describeAction(a engine.Action) map[string]any {
	m := map[string]any{"type": a.Kind.String()}
	flags := a.Flags
	if flags == nil {
		flags = []string{}
	}
	truth := func(name string, v bool) {
		if v {
			m[name] = true
		}
	}
	switch a.Kind {
	case engine.Keep:
		m["flags"] = flags
		truth("implicit", a.Implicit)
	case engine.FileInto:
		m["mailbox"], m["flags"] = a.Mailbox, flags
		truth("copy", a.Copy)
		truth("create", a.Create)
	case engine.Redirect:
		m["address"] = a.Address
	case engine.Reject, engine.EReject:
		m["reason"] = a.Reason
	case engine.Vacation:
		m["address"], m["subject"], m["reason"] = a.Address, a.Subject, a.Reason
	case engine.Notify:
		m["method"], m["to"], m["message"] = a.Method, a.To, a.Message
	}
	return m
}

func (o *sieveOutcome) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return terminal.JSON(w).Encode(o)
	}
	var b strings.Builder
	for _, s := range o.Steps {
		fmt.Fprintf(&b, "%s%5d  %s\n", cmp.Or(s.Script, ""), s.Line, s.Text)
	}
	if o.Error != nil {
		fmt.Fprintf(&b, "line %d: %s\n", o.Error.Line, o.Error.Message)
	} else if o.RuntimeError != nil {
		fmt.Fprintf(&b, "line %d, while running: %s\n", o.RuntimeError.Line, o.RuntimeError.Message)
	}
	if o.Error == nil && len(o.Actions) == 0 {
		b.WriteString("discard\n")
	}
	for _, a := range o.Actions {
		b.WriteString(actionLine(a) + "\n")
	}
	for _, h := range o.Headers {
		fmt.Fprintf(&b, "  %s: %s\n", h[0], h[1])
	}
	if o.BodyChanged {
		b.WriteString("  (another body)\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// actionLine is an action for people.
func actionLine(a map[string]any) string {
	line := fmt.Sprint(a["type"])
	for _, k := range []string{"mailbox", "address", "to", "subject", "reason", "message"} {
		if v, ok := a[k]; ok && fmt.Sprint(v) != "" {
			line += fmt.Sprintf(" %q", fmt.Sprint(v))
		}
	}
	if flags, ok := a["flags"].([]string); ok && len(flags) > 0 {
		line += fmt.Sprintf(" with %s", strings.Join(flags, " "))
	}
	for _, k := range []string{"implicit", "copy", "create"} {
		if a[k] == true {
			line += " (" + k + ")"
		}
	}
	return line
}
