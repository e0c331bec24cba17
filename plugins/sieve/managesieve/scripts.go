package managesieve

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"
)

// scriptCommand returns what carries out a command of those who have logged in.
func (s *session) scriptCommand(verb string) (func(*command) reply, bool) {
	switch verb {
	case "HAVESPACE":
		return s.haveSpace, true
	case "PUTSCRIPT":
		return s.putScript, true
	case "CHECKSCRIPT":
		return s.checkScript, true
	case "LISTSCRIPTS":
		return s.bare(s.listScripts), true
	case "SETACTIVE":
		return s.setActive, true
	case "GETSCRIPT":
		return s.named(s.getScript), true
	case "DELETESCRIPT":
		return s.named(s.deleteScript), true
	case "RENAMESCRIPT":
		return s.renameScript, true
	case "UNAUTHENTICATE":
		return s.bare(s.unauthenticate), true
	}
	return nil, false
}

func (s *session) bare(f func(*command) reply) func(*command) reply {
	return func(c *command) reply { return s.plainly(c, func() reply { return f(c) }) }
}

// named is for commands with one argument, the name of a script.
func (s *session) named(f func(ctx context.Context, name string) reply) func(*command) reply {
	return func(c *command) reply {
		if !c.has(stringArg) {
			return s.wrong("The command has the name of a script")
		}
		name, valid := nameOf(c.args[0])
		if !valid {
			return no(badName)
		}
		ctx, cancel := s.work()
		defer cancel()
		return f(ctx, name)
	}
}

// wrong is the answer to a command that is none, or that cannot be here.
func (s *session) wrong(text string) reply {
	s.faults++
	return no(text)
}

// work is the time for one command. It goes on when the server ends.
func (s *session) work() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(s.ctx), s.server.opt.Timeouts.Work)
}

const badName = "A script's name has 1 to 512 octets of UTF-8, without control characters"

// nameOf is the name of a script (RFC 5804 §1.6, RFC 5198 §2).
func nameOf(a arg) (string, bool) {
	const maxName = 512
	name := string(a.text)
	return name, name != "" && len(name) <= maxName && !a.long && utf8.ValidString(name) && !strings.HasPrefix(name, "\uFEFF") &&
		strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f || r == '\u2028' || r == '\u2029' }) < 0
}

// haveSpace is RFC 5804 §2.5.
func (s *session) haveSpace(c *command) reply {
	if !c.has(stringArg, numberArg) {
		return s.wrong("HAVESPACE has a name and a size")
	}
	name, valid := nameOf(c.args[0])
	if !valid {
		return no(badName)
	}
	ctx, cancel := s.work()
	defer cancel()
	if err := s.server.opt.Scripts.HaveSpace(ctx, s.account, name, int64(c.args[1].number)); err != nil {
		return s.refusal(c.verb, err)
	}
	return ok("There is room")
}

// putScript is RFC 5804 §2.6.
func (s *session) putScript(c *command) reply {
	if !c.has(stringArg, stringArg) {
		return s.wrong("PUTSCRIPT has a name and a script")
	}
	name, valid := nameOf(c.args[0])
	if !valid {
		return no(badName)
	}
	if r, usable := s.usable(c.args[1]); !usable {
		return r
	}
	if len(c.args[1].text) == 0 {
		return no("An empty script is not stored; SETACTIVE \"\" has no script run")
	}
	ctx, cancel := s.work()
	defer cancel()
	warnings, err := s.server.opt.Scripts.Put(ctx, s.account, name, c.args[1].text)
	if err != nil {
		return s.refusal(c.verb, err)
	}
	s.log.Info("script stored", "account", s.account.String(), "script", name, "size", len(c.args[1].text))
	return warned(warnings, "The script is stored")
}

// checkScript is RFC 5804 §2.12.
func (s *session) checkScript(c *command) reply {
	if !c.has(stringArg) {
		return s.wrong("CHECKSCRIPT has a script")
	}
	if r, usable := s.usable(c.args[0]); !usable {
		return r
	}
	ctx, cancel := s.work()
	defer cancel()
	warnings, err := s.server.opt.Scripts.Check(ctx, s.account, c.args[0].text)
	if err != nil {
		return s.refusal(c.verb, err)
	}
	return warned(warnings, "The script is good")
}

// usable reports whether a script has come through.
func (s *session) usable(a arg) (reply, bool) {
	switch {
	case a.long:
		return noCode(CodeMaxSize, "The script is too large"), false
	case a.dropped:
		return noCode(CodeTryLater, "There is no memory for the script now"), false
	}
	return reply{}, true
}

func warned(warnings, text string) reply {
	if warnings == "" {
		return ok(text)
	}
	return reply{word: "OK", code: "WARNINGS", text: lines(warnings)}
}

// lines has a text of several lines as the protocol wants it.
func lines(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.TrimRight(text, "\r\n"), "\r\n", "\n"), "\n", "\r\n")
}

// listScripts is RFC 5804 §2.7.
func (s *session) listScripts(*command) reply {
	ctx, cancel := s.work()
	defer cancel()
	list, err := s.server.opt.Scripts.List(ctx, s.account)
	if err != nil {
		return s.refusal("LISTSCRIPTS", err)
	}
	for _, script := range list {
		s.out.WriteString(quote(script.Name))
		if script.Active {
			s.out.WriteString(" ACTIVE")
		}
		s.out.WriteString("\r\n")
	}
	return ok("These are the scripts")
}

// setActive is RFC 5804 §2.8.
func (s *session) setActive(c *command) reply {
	if !c.has(stringArg) {
		return s.wrong("SETACTIVE has the name of a script")
	}
	name, valid := nameOf(c.args[0])
	if !valid && (name != "" || c.args[0].long) {
		return no(badName)
	}
	ctx, cancel := s.work()
	defer cancel()
	if err := s.server.opt.Scripts.Activate(ctx, s.account, name); err != nil {
		return s.refusal(c.verb, err)
	}
	s.log.Info("script activated", "account", s.account.String(), "script", name)
	if name == "" {
		return ok("No script is active")
	}
	return ok("The script is active")
}

// getScript is RFC 5804 §2.9.
func (s *session) getScript(ctx context.Context, name string) reply {
	text, err := s.server.opt.Scripts.Get(ctx, s.account, name)
	if err != nil {
		return s.refusal("GETSCRIPT", err)
	}
	writeLiteral(s.out, text)
	s.out.WriteString("\r\n")
	return ok("This is the script")
}

// deleteScript is RFC 5804 §2.10.
func (s *session) deleteScript(ctx context.Context, name string) reply {
	if err := s.server.opt.Scripts.Delete(ctx, s.account, name); err != nil {
		return s.refusal("DELETESCRIPT", err)
	}
	s.log.Info("script deleted", "account", s.account.String(), "script", name)
	return ok("The script is deleted")
}

// renameScript is RFC 5804 §2.11.
func (s *session) renameScript(c *command) reply {
	if !c.has(stringArg, stringArg) {
		return s.wrong("RENAMESCRIPT has two names")
	}
	from, valid := nameOf(c.args[0])
	to, validTo := nameOf(c.args[1])
	if !valid || !validTo {
		return no(badName)
	}
	ctx, cancel := s.work()
	defer cancel()
	if err := s.server.opt.Scripts.Rename(ctx, s.account, from, to); err != nil {
		return s.refusal(c.verb, err)
	}
	s.log.Info("script renamed", "account", s.account.String(), "script", from, "to", to)
	return ok("The script is renamed")
}

// refusal is the answer to what [Scripts] did not do.
func (s *session) refusal(verb string, err error) reply {
	var r *Refusal
	if errors.As(err, &r) {
		return noCode(r.Code, lines(r.Text))
	}
	s.log.Error("managesieve: scripts cannot be reached", "account", s.account.String(), "command", verb, "error", err)
	return noCode(CodeTryLater, "The scripts cannot be reached now")
}
