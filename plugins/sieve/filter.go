package sieve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

var _ sdk.Filter = (*Plugin)(nil)

// Filters reports whether settings, as TOML, name scripts for messages that have yet to be accepted.
// Without them there is nothing to ask the plugin.
func Filters(settings []byte) bool {
	s := Defaults()
	return (sdk.Config{Settings: settings}).Decode(&s) == nil && len(s.Gateway) > 0
}

// gatewayExtensions are what scripts of the gateway may require: not what needs a mailbox, an
// owner or a memory.
func gatewayExtensions() []string {
	without := []string{"vacation", "vacation-seconds", "enotify", "fcc", "imap4flags", "mailbox", "mboxmetadata", "servermetadata", "special-use", "duplicate"}
	return slices.DeleteFunc(slices.Clone(engine.Extensions()), func(e string) bool { return slices.Contains(without, e) })
}

// judgement is what scripts say about a message to some recipients.
type judgement struct {
	outcome sdk.Outcome
	edits   []sdk.Edit
	body    []byte // another one; nil: its own
}

// Filter runs the scripts of the gateway: once for a message, or for each of its recipients where
// a script looks at the envelope.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	v := sdk.Continue()
	if len(p.settings.Gateway) == 0 {
		return v, nil
	}
	scripts := make([]*engine.Script, len(p.settings.Gateway))
	each := false
	for i, name := range p.settings.Gateway {
		var err error
		if scripts[i], err = p.gatewayScript(ctx, name); err != nil {
			return nil, err
		}
		for _, looks := range []string{"envelope", "include"} { // what is included may look at it
			each = each || slices.Contains(scripts[i].Requires(), looks)
		}
	}
	var all []judgement
	for i := range m.Envelope.Recipients {
		concerned := m.Envelope.Recipients
		if each {
			concerned = concerned[i : i+1]
		}
		j, err := p.judge(ctx, m, concerned, scripts, v)
		if err != nil {
			return nil, err
		}
		if all = append(all, j); !each {
			break
		}
	}
	if len(all) == 0 {
		return v, nil
	}
	return p.verdict(ctx, v, all)
}

// verdict puts together what is said about the recipients.
func (p *Plugin) verdict(ctx context.Context, v *sdk.Verdict, all []judgement) (*sdk.Verdict, error) {
	same := !slices.ContainsFunc(all[1:], func(j judgement) bool { return !reflect.DeepEqual(j, all[0]) })
	if same {
		v.Outcome, v.Edits = all[0].outcome, append(v.Edits, all[0].edits...)
		if all[0].body != nil {
			b, err := sdk.NewBody(ctx)
			if err != nil {
				return nil, err
			}
			if _, err := b.Write(all[0].body); err != nil {
				return nil, err
			}
			v.ReplaceBody(b)
		}
		return v, nil
	}
	for i, j := range all {
		v.For(i, j.outcome)
		if j.body != nil { // there is one draft
			return nil, errors.New("a script of the gateway changes the body for some recipients only")
		}
		for _, e := range j.edits {
			e.Recipients = []int{i}
			v.Edits = append(v.Edits, e)
		}
	}
	return v, nil
}

// judge runs the scripts for some recipients, each as long as the one before keeps the message.
func (p *Plugin) judge(ctx context.Context, m *mail.Message, to []mail.Recipient, scripts []*engine.Script, v *sdk.Verdict) (judgement, error) {
	var j judgement
	message := &engine.Message{Header: m.Header, Body: m.Body}
	kept := true
	for i, s := range scripts {
		if !kept {
			break
		}
		result, err := s.Run(ctx, message, p.gatewayEnv(m, to[0]))
		if err != nil {
			return j, err
		}
		fault := result.Fault
		if fault == nil {
			if kept, err = p.rule(&j, result, to); err != nil {
				fault, kept = &engine.Error{Message: err.Error()}, true
			} else if e := result.Edited; kept && e != nil {
				if !wireForm(e.Header.Block()) || e.Body.Path == "" && !wireForm(e.Body.Inline) {
					fault = &engine.Error{Message: errBody.Error()}
				} else {
					message = e
				}
			}
		}
		if fault != nil {
			name := p.settings.Gateway[i]
			p.host.Log(ctx, slog.LevelWarn, "script failed", "script", name, "line", fault.Line, "in", fault.Script, "reason", fault.Message, "id", m.Envelope.ID)
			v.Note("fault", oneLine("script "+name+" failed: "+fault.Error(), 400))
		}
	}
	j.edits = append(headerEdits(m.Header, message.Header), j.edits...)
	if message.Body.Path == "" && !sameBytes(message.Body.Inline, m.Body.Inline) {
		j.body = message.Body.Inline
		if j.body == nil {
			j.body = []byte{}
		}
	}
	return j, nil
}

// rule takes over what one script wants done, and reports whether it keeps the message.
func (p *Plugin) rule(j *judgement, r *engine.Result, concerned []mail.Recipient) (kept bool, err error) {
	var made judgement
	reason := "by a script of the gateway"
	for _, a := range r.Actions {
		switch a.Kind {
		case engine.Keep:
			kept = true
		case engine.Redirect:
			to, err := mail.ParsePath(a.Address)
			if err != nil || to.IsZero() {
				return true, fmt.Errorf("'%s' is no address to redirect to", a.Address)
			}
			made.edits = append(made.edits, sdk.Edit{Kind: sdk.RecipientAdd, Path: to})
		case engine.Reject, engine.EReject:
			made.outcome = sdk.Outcome{Action: sdk.ActionReject, Status: mail.Permanent(550, 7, 1, oneLine(a.Reason, 400))}
		case engine.FileInto:
			if a.Copy {
				return true, errors.New("'fileinto :copy' is not possible before a message is accepted")
			}
			made.outcome = sdk.Outcome{Action: sdk.ActionQuarantine, Reason: oneLine("filed into "+a.Mailbox+" "+reason, 400)}
		}
	}
	switch {
	case kept && made.outcome.Action != sdk.ActionContinue:
		return true, errors.New("a message cannot be kept and refused or held")
	case kept:
	case len(made.edits) > 0 && made.outcome.Action == sdk.ActionContinue: // redirected, to others only
		for _, to := range concerned {
			made.edits = append(made.edits, sdk.Edit{Kind: sdk.RecipientRemove, Path: to.Path})
		}
	case made.outcome.Action == sdk.ActionContinue:
		made.outcome = sdk.Outcome{Action: sdk.ActionDiscard, Reason: "discarded " + reason}
	}
	j.outcome, j.edits = made.outcome, append(j.edits, made.edits...)
	return kept, nil
}

func (p *Plugin) gatewayEnv(m *mail.Message, to mail.Recipient) *engine.Env {
	e := &m.Envelope
	env := &engine.Env{From: e.ReversePath.String(), To: to.Given().String(), Auth: e.Client.User, Now: p.clock(), Delimiter: p.settings.Delimiter,
		Script: p.includedByAdmin, Items: p.items(e, p.hostname, "MTA")}
	env.Items["phase"] = "pre"
	addFindings(env.Items, m)
	env.Spam, env.Virus = p.scores(m)
	return env
}

// gatewayScript is a script of the gateway, as adminScript.
func (p *Plugin) gatewayScript(ctx context.Context, name string) (*engine.Script, error) {
	return p.current(ctx, p.gateway, name)
}
