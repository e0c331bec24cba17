package sieve

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/postern-mail/postern/plugins/sieve/engine"
)

// faultTime is for how long it is remembered that the owner was told of a fault.
const faultTime = 365 * 24 * time.Hour

// fault is what becomes of a message whose script failed: it is kept (RFC 5228 §2.10.6), which
// means that the next script of the sequence sees it. The owner is told once of each version
// of his script; the admin finds it in the log.
func (p *planning) fault(s step, f *engine.Error) error {
	p.host.Log(p.ctx, slog.LevelWarn, "script failed", "account", p.owner.String(), "script", s.name, "line", f.Line, "in", f.Script, "reason", f.Message,
		"id", p.m.Envelope.ID)
	p.host.Count(p.ctx, "script_faults", 1)
	p.plan.Note(oneLine("script "+s.name+" failed: "+f.Error(), 400))
	if s.admin {
		return nil
	}
	key := "fault:" + s.hash[:min(len(s.hash), 32)]
	told, err := p.remembered(p.ctx, key)
	if err != nil || told {
		return err
	}
	m := p.message5322("auto-generated", "fault", s.hash)
	m.add("From", "Postern <"+p.postmaster+">")
	m.add("To", p.owner.String())
	m.text("Subject", fmt.Sprintf("Your Sieve script %q has a fault", oneLine(s.name, 100)))
	where := fmt.Sprintf("Line %d", f.Line)
	if f.Line == 0 {
		where = "At its end"
	}
	if f.Script != "" {
		where += " of the script " + oneLine(f.Script, 200) + ", which it includes"
	}
	text := fmt.Sprintf("Your active Sieve script %q could not be run to its end:\n\n    %s: %s\n\n"+
		"It happened with the message %q from <%s>. That message, and every other with which this happens, is kept "+
		"as if the script had said nothing about it.\n\n"+
		"Please correct the script. You will not be told again before you change it.\n",
		oneLine(s.name, 200), where, oneLine(f.Message, 400), oneLine(p.subject(), 200), p.m.Envelope.ReversePath)
	if err := m.plain(text); err != nil {
		return err
	}
	p.plan.Notify(p.owner, m.header(), m.body).AndRemember(key, faultTime)
	return nil
}

// adminScript is a script of the admin. Of an older one that is in force because its file has
// faults now, or is gone, the log tells.
func (p *Plugin) adminScript(ctx context.Context, name string) (*engine.Script, error) {
	return p.current(ctx, p.files, name)
}

func (p *Plugin) current(ctx context.Context, from *files, name string) (*engine.Script, error) {
	script, err := from.load(name)
	if script == nil {
		return nil, err
	}
	if err != nil && from.tell(name) {
		p.host.Log(ctx, slog.LevelError, "a script of the admin cannot be used, the one before it stays", "file", name, "error", err)
	}
	return script, nil
}
