package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// do adds to v what one command says:
//
//	insert INDEX NAME VALUE     change INDEX NAME [VALUE]     remove INDEX NAME
//	rcpt+ ADDRESS               rcpt- ADDRESS                 from ADDRESS
//	copy ADDRESS REVERSE-PATH   verdict ACTION
//
// "@1,2 " before it limits it to those recipients of the message. Actions are reject,
// tempfail, discard, quarantine and unscanned.
func do(_ context.Context, v *sdk.Verdict, m *mail.Message, command string) error {
	var only []int
	if list, rest, ok := strings.Cut(command, " "); ok && list[0] == '@' {
		for n := range strings.SplitSeq(list[1:], ",") {
			i, err := strconv.Atoi(n)
			if err != nil {
				return err
			}
			only = append(only, i)
		}
		command = rest
	}
	verb, arg, _ := strings.Cut(command, " ")
	if verb == "verdict" {
		return judge(v, only, arg)
	}
	e, err := edit(verb, arg)
	if err != nil {
		return fmt.Errorf("X-Do: %s: %w", command, err)
	}
	e.Recipients = only
	v.Edits = append(v.Edits, e)
	return nil
}

func edit(verb, arg string) (e sdk.Edit, err error) {
	fields := map[string]sdk.EditKind{"insert": sdk.HeaderInsert, "change": sdk.HeaderChange, "remove": sdk.HeaderRemove}
	paths := map[string]sdk.EditKind{"rcpt+": sdk.RecipientAdd, "rcpt-": sdk.RecipientRemove, "from": sdk.ReversePath, "copy": sdk.Copy}
	first, rest, _ := strings.Cut(arg, " ")
	switch {
	case fields[verb] != 0:
		e.Kind = fields[verb]
		e.Name, e.Value, _ = strings.Cut(rest, " ")
		e.Index, err = strconv.Atoi(first)
	case paths[verb] != 0:
		e.Kind = paths[verb]
		if first != "" { // the null reverse-path
			e.Path, err = mail.ParsePath(first)
		}
		if rest != "" && err == nil {
			e.ReversePath, err = mail.ParsePath(rest)
		}
	default:
		err = fmt.Errorf("no such command")
	}
	return e, err
}

func judge(v *sdk.Verdict, only []int, action string) error {
	outcomes := map[string]*sdk.Verdict{
		"reject":     sdk.Reject(mail.Permanent(550, 7, 1, "Refused by puppet")),
		"tempfail":   sdk.Tempfail(mail.Temporary(450, 7, 1, "Not now by puppet")),
		"discard":    sdk.Discard("told to"),
		"quarantine": sdk.Quarantine("told to"),
		"unscanned":  sdk.Unscanned("told to"),
	}
	o, ok := outcomes[action]
	if !ok {
		return fmt.Errorf("no such action: %s", action)
	}
	if only == nil {
		v.Outcome = o.Outcome
	}
	for _, i := range only {
		v.For(i, o.Outcome)
	}
	return nil
}
