package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/sdk/mail"
)

// What the commands about the directory have in common.

// inForce ends the descriptions of commands that change the directory.
const inForce = "\n\nChanges are in force at once, in a running gateway too."

// branch is a command that has subcommands and does nothing itself.
func branch(use, short, long string, sub ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: func(_ *cobra.Command, a []string) error { return unknownCommand(a) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sub...)
	return cmd
}

// inDirectory is the RunE of a command that works with the directory.
func inDirectory(file *string, f func(cmd *cobra.Command, d *directory.Directory, a []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, a []string) error {
		return withDirectory(*file, func(d *directory.Directory) error { return f(cmd, d, a) })
	}
}

// atAccount is the RunE of a command whose first argument is an address.
func atAccount(file *string, f func(cmd *cobra.Command, d *directory.Directory, p mail.Path, rest []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, a []string) error {
		p, err := address(a[0])
		if err != nil {
			return err
		}
		return withDirectory(*file, func(d *directory.Directory) error { return f(cmd, d, p, a[1:]) })
	}
}

// say prints what was done.
func say(cmd *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	return err
}

// printAll prints one thing a line: as JSON, or in words.
func printAll[T any](cmd *cobra.Command, asJSON bool, all []T, words func(T) string) error {
	for _, one := range all {
		if asJSON {
			if err := terminal.JSON(cmd.OutOrStdout()).Encode(one); err != nil {
				return err
			}
		} else if err := say(cmd, "%s", words(one)); err != nil {
			return err
		}
	}
	return nil
}

func jsonFlag(cmd *cobra.Command, asJSON *bool) *cobra.Command {
	cmd.Flags().BoolVar(asJSON, "json", false, "one JSON object a line")
	return cmd
}

func addresses(list []string) ([]mail.Path, error) {
	var out []mail.Path
	for _, s := range list {
		p, err := address(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// pattern reads an address, or "@" and a domain: the Path then has no local part.
func pattern(s string) (mail.Path, error) {
	name, whole := strings.CutPrefix(s, "@")
	if !whole {
		return address(s)
	}
	d, err := mail.ParseDomain(name)
	if err != nil {
		return mail.Path{}, usageError{fmt.Errorf("%q is not a domain: %w", name, err)}
	}
	return mail.Path{Domain: d}, nil
}

func patternText(p mail.Path) string {
	if p.Local == "" {
		return "@" + p.Domain.String()
	}
	return p.String()
}

func domainName(s string) (mail.Domain, error) {
	d, err := mail.ParseDomain(s)
	if err != nil {
		return d, usageError{fmt.Errorf("%q is not a domain: %w", s, err)}
	}
	return d, nil
}

func joined(paths []mail.Path) string {
	words := make([]string, len(paths))
	for i, p := range paths {
		words[i] = patternText(p)
	}
	return strings.Join(words, " ")
}

// quotaFlags are the two parts of a quota, as they are given. "default" takes one away.
type quotaFlags struct{ bytes, messages string }

func (q *quotaFlags) add(cmd *cobra.Command, whose string) {
	cmd.Flags().StringVar(&q.bytes, "quota", "", `what `+whose+` may hold, like "5GiB"; 0: no limit`)
	cmd.Flags().StringVar(&q.messages, "quota-messages", "", "the same in messages; 0: no limit")
}

// parse returns the parts that are given.
func (q *quotaFlags) parse() (bytes, messages *int64, err error) {
	if bytes, err = quotaBytes(q.bytes); err != nil {
		return nil, nil, err
	}
	messages, err = quotaMessages(q.messages)
	return bytes, messages, err
}

func quotaBytes(s string) (*int64, error) {
	if s == "" || s == "default" {
		return nil, nil
	}
	size, err := config.ParseSize(s)
	if err != nil {
		return nil, usageError{fmt.Errorf("quota: %w", err)}
	}
	n := int64(size)
	return &n, nil
}

func quotaMessages(s string) (*int64, error) {
	if s == "" || s == "default" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return nil, usageError{fmt.Errorf("quota: %q is not a number of messages", s)}
	}
	return &n, nil
}

func quotaText(q directory.Quota) string {
	var s []string
	if q.Bytes > 0 {
		s = append(s, config.Size(q.Bytes).String())
	}
	if q.Messages > 0 {
		s = append(s, fmt.Sprintf("%d messages", q.Messages))
	}
	if s == nil {
		return "no limit"
	}
	return strings.Join(s, ", ")
}

// readLimited reads an argument's file, "-" for standard input.
func readLimited(in io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errors.New("is too large")
	}
	return data, err
}
