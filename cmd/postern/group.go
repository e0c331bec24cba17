package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/sdk/mail"
)

func groupCommand(file *string) *cobra.Command {
	return branch("group", "Groups: addresses whose members each get a copy",
		"Groups: addresses whose members each get a copy. Members are accounts, aliases, other groups, and addresses elsewhere.\n\n"+
			"Who may send to a group: anyone; authenticated (who has logged in, and relay networks); or members (who has logged in as one; of members elsewhere\n"+
			"the reverse-path has to do). Others get 550 5.7.2. An alias with one target is another name for a group. Inside of another group a group is for whom that is for."+inForce,
		groupAdd(file), groupSet(file), groupRemove(file), groupList(file), groupMember(file),
		importCommand(file, "groups", "Add groups from a CSV file", "  printf 'address,senders,members\\nteam@example.org,members,alice@example.org bob@example.com\\n' | postern group import -",
			[]string{"address", "members"}, []string{"senders"}, groupItem, nil))
}

func sendersFlag(cmd *cobra.Command, to *string, standard string) {
	cmd.Flags().StringVar(to, "senders", standard, "who may send to it: anyone, authenticated or members")
}

func groupAdd(file *string) *cobra.Command {
	var senders string
	cmd := &cobra.Command{
		Use:     "add ADDRESS [MEMBER...]",
		Short:   "Make a group",
		Example: "  postern group add team@example.org alice@example.org bob@elsewhere.example --senders members",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, rest []string) error {
			members, err := addresses(rest)
			if err != nil {
				return err
			}
			if err := d.AddGroup(cmd.Context(), p, directory.Senders(senders), members...); err != nil {
				return err
			}
			return say(cmd, "%s added with %d members", p, len(members))
		}),
	}
	sendersFlag(cmd, &senders, string(directory.SendersAnyone))
	return cmd
}

func groupSet(file *string) *cobra.Command {
	var senders string
	cmd := &cobra.Command{
		Use:     "set ADDRESS --senders WHO",
		Short:   "Say who may send to a group",
		Example: "  postern group set team@example.org --senders authenticated",
		Args:    args(cobra.ExactArgs(1)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, _ []string) error {
			if err := d.SetGroupSenders(cmd.Context(), p, directory.Senders(senders)); err != nil {
				return err
			}
			return say(cmd, "%s: %s may send to it", p, senders)
		}),
	}
	sendersFlag(cmd, &senders, "")
	cmd.MarkFlagRequired("senders")
	return cmd
}

func groupRemove(file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "remove ADDRESS",
		Short:   "Remove a group; its members are not touched",
		Example: "  postern group remove team@example.org",
		Args:    args(cobra.ExactArgs(1)),
		RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, _ []string) error {
			if err := d.RemoveGroup(cmd.Context(), p); err != nil {
				return err
			}
			return say(cmd, "%s removed", p)
		}),
	}
}

func groupList(file *string) *cobra.Command {
	var asJSON bool
	return jsonFlag(&cobra.Command{
		Use:     "list",
		Short:   "List the groups and their members",
		Example: "  postern group list --json",
		Args:    args(cobra.NoArgs),
		RunE: inDirectory(file, func(cmd *cobra.Command, d *directory.Directory, _ []string) error {
			all, err := d.Groups(cmd.Context())
			if err != nil {
				return err
			}
			return printAll(cmd, asJSON, all, func(g directory.Group) string {
				return fmt.Sprintf("%s (from %s) -> %s", g.Address, g.Senders, joined(g.Members))
			})
		}),
	}, &asJSON)
}

func groupMember(file *string) *cobra.Command {
	change := func(word string, do func(*cobra.Command, *directory.Directory, mail.Path, []mail.Path) error) *cobra.Command {
		return &cobra.Command{
			Use:     word + " GROUP MEMBER...",
			Short:   map[string]string{"add": "Add members to a group", "remove": "Remove members of a group, which stays"}[word],
			Example: "  postern group member " + word + " team@example.org carol@example.org",
			Args:    args(cobra.MinimumNArgs(2)),
			RunE: atAccount(file, func(cmd *cobra.Command, d *directory.Directory, p mail.Path, rest []string) error {
				members, err := addresses(rest)
				if err != nil {
					return err
				}
				if err := do(cmd, d, p, members); err != nil {
					return err
				}
				return say(cmd, "%s: %s %sd", p, joined(members), map[string]string{"add": "adde", "remove": "remove"}[word])
			}),
		}
	}
	return branch("member", "Members of groups", "Members of groups."+inForce,
		change("add", func(cmd *cobra.Command, d *directory.Directory, p mail.Path, members []mail.Path) error {
			return d.AddMembers(cmd.Context(), p, members...)
		}),
		change("remove", func(cmd *cobra.Command, d *directory.Directory, p mail.Path, members []mail.Path) error {
			return d.RemoveMembers(cmd.Context(), p, members...)
		}))
}
