package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
	"github.com/postern-mail/postern/core/directory"
)

func domainImport(file *string) *cobra.Command {
	return importCommand(file, "domains", "Add domains from a CSV file",
		"  printf 'name,deliver,quota\\nexample.com,maildir,5GiB\\n' | postern domain import -",
		[]string{"name", "deliver"}, []string{"aliases", "recipients", "directory", "planner", "postmaster", "catch_all", "quota", "quota_messages"}, domainItem,
		func(cmd *cobra.Command, d *directory.Directory, items []directory.Item) error {
			return checkImported(cmd, *file, d, items)
		})
}

func domainItem(r row) (directory.Item, error) {
	field := func(column string) string { return strings.TrimSpace(r.fields[column]) }
	dom := &directory.Domain{Deliver: r.words("deliver"), Recipients: field("recipients"), Directory: field("directory"), Planner: field("planner")}
	if dom.Recipients == "" {
		dom.Recipients = directory.RecipientsDirectory
	}
	var errs [4]error
	dom.Name, errs[0] = domainName(field("name"))
	for _, s := range r.words("aliases") {
		name, err := domainName(s)
		errs[1] = errors.Join(errs[1], err)
		dom.Aliases = append(dom.Aliases, name)
	}
	if s := field("postmaster"); s != "" {
		dom.Postmaster, errs[2] = address(s)
	}
	dom.CatchAll, errs[3] = r.list("catch_all")
	bytes, err := quotaBytes(field("quota"))
	if bytes != nil {
		dom.Quota.Bytes = *bytes
	}
	messages, err2 := quotaMessages(field("quota_messages"))
	if messages != nil {
		dom.Quota.Messages = *messages
	}
	return directory.Item{Domain: dom}, errors.Join(errors.Join(errs[:]...), err, err2)
}

// checkImported refuses domains that a gateway with this configuration could not work with.
func checkImported(cmd *cobra.Command, file string, d *directory.Directory, items []directory.Item) error {
	c, err := load(file)
	if err != nil {
		return err
	}
	stored, err := d.Domains(cmd.Context())
	if err != nil {
		return err
	}
	all := slices.Clone(stored)
	for _, it := range items {
		all = append(all, *it.Domain)
	}
	err = gateway.CheckDomains(c, all)
	if err == nil {
		return nil
	}
	var problems []error
	for _, it := range items { // whose fault is it?
		if one := checkStored(cmd, c, d, *it.Domain); one != nil && len(problems) < 50 {
			problems = append(problems, fmt.Errorf("line %d: domain %s: %w", it.Line, it.Domain.Name, one))
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	// They do not go together. The directory knows the lines of those that are there twice.
	if twice := d.Import(cmd.Context(), items, true); twice != nil {
		return twice
	}
	return plainProblems(err, len(c.Domains))
}
