package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/sdk/mail"
)

// maxCSV bounds a file of a bulk import, in bytes.
const maxCSV = 256 << 20

// row is one line of a CSV file, by the names of its columns.
type row struct {
	line   int
	fields map[string]string
}

// importCommand adds what a CSV file has. check, if it is there, says what else is wrong.
func importCommand(file *string, what, short, example string, required, optional []string, item func(row) (directory.Item, error),
	check func(*cobra.Command, *directory.Directory, []directory.Item) error) *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "import FILE.csv", Short: short,
		Long: short + ": all or, if something is wrong, nothing.\n\nThe first line names the columns: " + strings.Join(required, ", ") +
			"; and if you like: " + strings.Join(optional, ", ") + ". - is standard input.",
		Example: example,
		Args:    args(cobra.ExactArgs(1)),
		RunE: inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, a []string) error {
			data, err := readCSV(cmd, a[0])
			if err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			items, err := items(data, required, optional, item)
			if err == nil && check != nil {
				err = check(cmd, d, items)
			}
			if err == nil {
				err = d.Import(cmd.Context(), items, dry)
			}
			if err != nil {
				return fmt.Errorf("%s: nothing is imported:\n%s", a[0], err) // the file is at fault, not the command
			}
			if dry {
				return say(cmd, "%d %s could be imported", len(items), what)
			}
			return say(cmd, "%d %s imported", len(items), what)
		}),
	}
	if optional == nil {
		cmd.Long = strings.Replace(cmd.Long, "; and if you like: ", "", 1)
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "check everything and change nothing")
	return cmd
}

func readCSV(cmd *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		return readLimited(cmd.InOrStdin(), maxCSV)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	return readLimited(f, maxCSV)
}

// items reads a CSV file (RFC 4180). The error names each line that is wrong.
func items(data []byte, required, optional []string, item func(row) (directory.Item, error)) ([]directory.Item, error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	r.TrimLeadingSpace = true
	columns, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("line 1: the names of the columns are missing: %w", err)
	}
	for i, name := range columns {
		columns[i] = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(required, columns[i]) && !slices.Contains(optional, columns[i]) {
			return nil, fmt.Errorf("line 1: there is no column %q: there are %s", name, strings.Join(append(slices.Clone(required), optional...), ", "))
		}
		if slices.Contains(columns[:i], columns[i]) {
			return nil, fmt.Errorf("line 1: column %q is there twice", name)
		}
	}
	for _, name := range required {
		if !slices.Contains(columns, name) {
			return nil, fmt.Errorf("line 1: column %q is missing", name)
		}
	}
	var out []directory.Item
	var problems []error
	for len(problems) < 50 {
		fields, err := r.Read()
		if err == io.EOF {
			break
		}
		line, _ := r.FieldPos(0)
		var broken *csv.ParseError
		if errors.As(err, &broken) {
			problems = append(problems, fmt.Errorf("line %d: %w", broken.StartLine, broken.Err))
			continue
		}
		if err != nil {
			return nil, err
		}
		one := row{line, make(map[string]string, len(columns))}
		for i, name := range columns {
			one.fields[name] = fields[i]
		}
		it, err := item(one)
		if err != nil {
			problems = append(problems, fmt.Errorf("line %d: %w", line, err))
		}
		it.Line = line
		out = append(out, it)
	}
	return out, errors.Join(problems...)
}

// words are what is in a field, with spaces or semicolons between them.
func (r row) words(column string) []string {
	return strings.FieldsFunc(r.fields[column], func(c rune) bool { return c == ' ' || c == ';' || c == '\t' })
}

// list reads the addresses in a field.
func (r row) list(column string) ([]mail.Path, error) { return addresses(r.words(column)) }

func accountItem(r row) (directory.Item, error) {
	a := &directory.NewAccount{Password: r.fields["password"], DisplayName: strings.TrimSpace(r.fields["display_name"])}
	var errs [4]error
	a.Address, errs[0] = address(strings.TrimSpace(r.fields["address"]))
	a.QuotaBytes, errs[1] = quotaBytes(strings.TrimSpace(r.fields["quota"]))
	a.QuotaMessages, errs[2] = quotaMessages(strings.TrimSpace(r.fields["quota_messages"]))
	switch e := strings.ToLower(strings.TrimSpace(r.fields["enabled"])); e {
	case "", "true", "yes", "1":
	case "false", "no", "0":
		a.Disabled = true
	default:
		errs[3] = fmt.Errorf("enabled: %q is neither true nor false", e)
	}
	return directory.Item{Account: a}, errors.Join(errs[:]...)
}

func aliasItem(r row) (directory.Item, error) {
	p, err := pattern(strings.TrimSpace(r.fields["address"]))
	targets, err2 := r.list("targets")
	return directory.Item{Alias: &directory.Alias{Address: p, Targets: targets}}, errors.Join(err, err2)
}

func groupItem(r row) (directory.Item, error) {
	p, err := address(strings.TrimSpace(r.fields["address"]))
	members, err2 := r.list("members")
	senders := directory.Senders(strings.TrimSpace(r.fields["senders"]))
	if senders == "" {
		senders = directory.SendersAnyone
	}
	return directory.Item{Group: &directory.Group{Address: p, Senders: senders, Members: members}}, errors.Join(err, err2)
}
