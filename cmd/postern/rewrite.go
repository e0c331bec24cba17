package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/core/directory"
)

func rewriteCommand(file *string) *cobra.Command {
	return branch("rewrite", "Rules that put one address in the place of another",
		"Rules that put one address of the envelope in the place of another, once, when a message comes in: of senders the reverse-path, of recipients the address before aliases\n"+
			"are asked about it. The rule for the very address goes first, then that for @DOMAIN, which keeps the local part where the other side has none. What comes out is\n"+
			"not rewritten again. An address need not be one of ours: mail for one that is rewritten to ours is taken, and mail for one of ours is sent on where the rule says."+inForce,
		rewriteAdd(file), rewriteRemove(file), rewriteList(file))
}

// kindFlags say of which addresses a rule is.
func kindFlags(cmd *cobra.Command) func() (directory.RewriteKind, error) {
	var sender, recipient bool
	cmd.Flags().BoolVar(&sender, "sender", false, "of senders")
	cmd.Flags().BoolVar(&recipient, "recipient", false, "of recipients")
	return func() (directory.RewriteKind, error) {
		switch {
		case sender == recipient:
			return "", usageError{errors.New("give --sender or --recipient")}
		case sender:
			return directory.RewriteSender, nil
		}
		return directory.RewriteRecipient, nil
	}
}

func rewriteAdd(file *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add {--sender|--recipient} FROM TO",
		Short: "Add a rule",
		Example: "  postern rewrite add --recipient old@example.org new@example.org\n  postern rewrite add --recipient @old.example @example.org\n" +
			"  postern rewrite add --sender @host.example.org @example.org",
		Args: args(cobra.ExactArgs(2)),
	}
	kind := kindFlags(cmd)
	cmd.RunE = inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, a []string) error {
		var r directory.Rewrite
		var errs [3]error
		r.Kind, errs[0] = kind()
		r.From, errs[1] = pattern(a[0])
		r.To, errs[2] = pattern(a[1])
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		if err := d.AddRewrite(cmd.Context(), r); err != nil {
			return err
		}
		return say(cmd, "%s added", r)
	})
	return cmd
}

func rewriteRemove(file *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove {--sender|--recipient} FROM",
		Short:   "Remove a rule",
		Example: "  postern rewrite remove --recipient @old.example",
		Args:    args(cobra.ExactArgs(1)),
	}
	kind := kindFlags(cmd)
	cmd.RunE = inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, a []string) error {
		k, err := kind()
		if err != nil {
			return err
		}
		from, err := pattern(a[0])
		if err != nil {
			return err
		}
		if err := d.RemoveRewrite(cmd.Context(), k, from); err != nil {
			return err
		}
		return say(cmd, "%s %s removed", k, patternText(from))
	})
	return cmd
}

func rewriteList(file *string) *cobra.Command {
	var asJSON bool
	type rule struct {
		Kind directory.RewriteKind `json:"kind"`
		From string                `json:"from"`
		To   string                `json:"to"`
	}
	return jsonFlag(&cobra.Command{
		Use:     "list",
		Short:   "List the rules",
		Example: "  postern rewrite list --json",
		Args:    args(cobra.NoArgs),
		RunE: inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, _ []string) error {
			all, err := d.Rewrites(cmd.Context())
			if err != nil {
				return err
			}
			var out []rule
			for _, r := range all {
				out = append(out, rule{r.Kind, patternText(r.From), patternText(r.To)})
			}
			return printAll(cmd, asJSON, out, func(r rule) string { return string(r.Kind) + " " + r.From + " -> " + r.To })
		}),
	}, &asJSON)
}
