package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
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
//	note NAME VALUE
//	body upper                  the message's body in capitals
//	body lf | cr | nul          what no body may have
//	body half                   the process ends in the middle of a large body
//	body stall                  the call does, when its time is over
//
// "@1,2 " before it limits it to those recipients of the message. Actions are reject,
// tempfail, discard, quarantine and unscanned.
func do(ctx context.Context, v *sdk.Verdict, m *mail.Message, command string) error {
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
	if verb == "note" {
		name, value, _ := strings.Cut(arg, " ")
		v.Note(name, value)
		return nil
	}
	if verb == "body" {
		b, err := sdk.NewBody(ctx)
		if err != nil {
			return err
		}
		if err := rewrite(ctx, b, m, arg); err != nil {
			return err
		}
		if v.ReplaceBody(b); only != nil {
			v.Only(only...)
		}
		return nil
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

func rewrite(ctx context.Context, b *sdk.Body, m *mail.Message, how string) error {
	texts := map[string]string{"lf": "smuggled\n.\nMAIL FROM:<x>\r\n", "cr": "a\rb\r\n", "nul": "a\x00b\r\n"}
	switch {
	case how == "upper":
		r, err := m.Body.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			if _, werr := b.Write(bytes.ToUpper(buf[:n])); werr != nil {
				return werr
			}
			if err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	case how == "half" || how == "stall":
		for range 100_000 {
			io.WriteString(b, "half\r\n")
		}
		if how == "half" {
			os.Exit(3)
		}
		<-ctx.Done()
		return ctx.Err()
	case texts[how] != "":
		_, err := io.WriteString(b, texts[how])
		return err
	}
	return fmt.Errorf("no such body: %s", how)
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
