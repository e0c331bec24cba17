package engine

import (
	"slices"
	"strings"
)

// actionCommand has the commands of RFC 5228 §3.3 and §4.
func actionCommand(name string) (commandSpec, bool) {
	flags := tagSpec{name: "flags", value: strList, ext: "imap4flags"}
	copied := tagSpec{name: "copy", ext: "copy"}
	switch name {
	case "stop":
		return commandSpec{signature{}, func(*compiler, *bound) (step, *Error) {
			return stepFunc(func(*run) error { return errStop }), nil
		}}, true
	case "discard":
		return commandSpec{signature{}, func(*compiler, *bound) (step, *Error) {
			return stepFunc(func(x *run) error { x.keep = false; return nil }), nil
		}}, true
	case "keep":
		return commandSpec{signature{tags: []tagSpec{flags}}, buildKeep}, true
	case "fileinto":
		return commandSpec{signature{ext: "fileinto", tags: []tagSpec{flags, copied, {name: "create", ext: "mailbox"},
			{name: "specialuse", value: str, ext: "special-use"}}, pos: []kind{str}}, buildFileInto}, true
	case "redirect":
		return commandSpec{signature{tags: []tagSpec{copied}, pos: []kind{str}}, buildRedirect}, true
	}
	return commandSpec{}, false
}

func buildKeep(c *compiler, b *bound) (step, *Error) {
	flags, err := c.flagsTag(b)
	if err != nil {
		return nil, err
	}
	return stepFunc(func(x *run) error {
		x.keep = false
		return x.act(Action{Kind: Keep, Line: b.Line, Flags: x.actionFlags(flags)})
	}), nil
}

func buildFileInto(c *compiler, b *bound) (step, *Error) {
	flags, err := c.flagsTag(b)
	if err != nil {
		return nil, err
	}
	mailbox, err := c.text(b.pos[0].Strings[0])
	if err != nil {
		return nil, err
	}
	var use *text
	if a, ok := b.tags["specialuse"]; ok {
		t, err := c.text(a.Strings[0])
		if err != nil {
			return nil, err
		}
		if t.constant() && !isSpecialUse(t.lit) {
			return nil, errorAt(a.Line, "'%s' is no special-use attribute, as \"\\\\Junk\" is", printable(t.lit))
		}
		use = &t
	}
	if mailbox.constant() && !validMailbox(mailbox.lit) {
		return nil, errorAt(mailbox.line, "'%s' is no name of a mailbox", printable(mailbox.lit))
	}
	a := Action{Kind: FileInto, Line: b.Line, Copy: b.has("copy"), Create: b.has("create")}
	return stepFunc(func(x *run) error {
		a := a
		a.Mailbox, a.Flags = x.text(mailbox), x.actionFlags(flags)
		if inbox(a.Mailbox) {
			a.Mailbox = "INBOX"
		}
		if !validMailbox(a.Mailbox) {
			return x.fault(b.Line, "'%s' is no name of a mailbox", printable(a.Mailbox))
		}
		if use != nil {
			if a.SpecialUse = x.text(*use); !isSpecialUse(a.SpecialUse) {
				return x.fault(b.Line, "'%s' is no special-use attribute", printable(a.SpecialUse))
			}
		}
		if !a.Copy {
			x.keep = false
		}
		return x.act(a)
	}), nil
}

// isSpecialUse reports whether s looks like "\Junk" (RFC 6154 §6).
func isSpecialUse(s string) bool {
	return len(s) > 1 && s[0] == '\\' && strings.Trim(lowerASCII(s[1:]), "abcdefghijklmnopqrstuvwxyz") == ""
}

// validMailbox bounds the names of mailboxes. What they may not say is up to those who make them; what no name of a
// mailbox has is refused here.
func validMailbox(s string) bool {
	return s != "" && len(s) <= 1024 && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) < 0
}

func buildRedirect(c *compiler, b *bound) (step, *Error) {
	to, err := c.text(b.pos[0].Strings[0])
	if err != nil {
		return nil, err
	}
	if to.constant() && !validAddress(to.lit) {
		return nil, errorAt(to.line, "'%s' is no address to redirect to", printable(to.lit))
	}
	return stepFunc(func(x *run) error {
		address := strings.TrimSpace(x.text(to))
		if !validAddress(address) {
			return x.fault(b.Line, "'%s' is no address to redirect to", printable(address))
		}
		list := parseAddresses(address)
		if !b.has("copy") {
			x.keep = false
		}
		return x.act(Action{Kind: Redirect, Line: b.Line, Address: list[0].full, Copy: b.has("copy")})
	}), nil
}

// validAddress reports whether s is one address, perhaps with a display name, and nothing else: sieve-address of
// RFC 5228 §8.2, with the characters of RFC 6532.
func validAddress(s string) bool {
	if len(s) > 1024 || strings.ContainsAny(s, "\r\n\x00") {
		return false
	}
	p := addressParser{s: s}
	a, group, ok := p.member()
	return ok && !group && !p.route && p.space() && p.pos == len(s) && a.full[0] != '@'
}

// act adds an action to the result, unless it does what another one does already.
func (x *run) act(a Action) error {
	a.Edited = x.snapshot()
	for i := range x.result.Actions {
		if merge(&x.result.Actions[i], a) {
			return nil
		}
	}
	if err := conflict(x, a); err != nil {
		return err
	}
	if len(x.result.Actions) >= x.limits.Actions {
		return x.fault(a.Line, "more than %d actions", x.limits.Actions)
	}
	if a.Kind == Redirect {
		n := 0
		for _, other := range x.result.Actions {
			if other.Kind == Redirect {
				n++
			}
		}
		if n >= x.limits.Redirects {
			return x.fault(a.Line, "more than %d redirects", x.limits.Redirects)
		}
	}
	x.explain(a.Line, "  %s", a.Kind)
	x.result.Actions = append(x.result.Actions, a)
	return nil
}

// snapshot is the message as it is now; nil if the script has not changed it.
func (x *run) snapshot() *Message {
	if x.msg.edited && x.msg.shot == nil {
		for _, f := range x.msg.fields {
			x.work += perField + int64(len(f.raw))
		}
	}
	return x.msg.snapshot()
}

// inbox reports whether a name is that of the inbox, which is the same in any case (RFC 3501 §5.1).
func inbox(name string) bool { return strings.EqualFold(name, "INBOX") }

// merge reports whether a does what old does, and joins them (RFC 5228 §2.10.3).
func merge(old *Action, a Action) bool {
	switch {
	case a.Kind == Redirect && old.Kind == Redirect:
		if !sameAddress(old.Address, a.Address) {
			return false
		}
		old.Copy = old.Copy && a.Copy
		return true
	case a.stores() && old.stores() && a.target() == old.target():
		old.Flags = a.Flags // the last ones count (RFC 5232 §5)
		old.Copy, old.Create = old.Copy && a.Copy, old.Create || a.Create
		old.Edited = a.Edited
		return true
	}
	return false
}

func (a Action) stores() bool { return a.Kind == Keep || a.Kind == FileInto }

func (a Action) target() string {
	if a.Kind == Keep || inbox(a.Mailbox) {
		return "INBOX"
	}
	return a.SpecialUse + "\x00" + a.Mailbox
}

func sameAddress(a, b string) bool {
	la, da, _ := strings.Cut(a, "@")
	lb, db, _ := strings.Cut(b, "@")
	return la == lb && strings.EqualFold(da, db)
}

// conflict refuses what cannot be done together: a refusal stands alone (RFC 5429 §2.3).
func conflict(x *run, a Action) error {
	for _, old := range x.result.Actions {
		if refusal(a.Kind) && refusal(old.Kind) {
			return x.fault(a.Line, "the message is refused twice, the other time in line %d", old.Line)
		}
		if refusal(a.Kind) && old.Kind != Notify || refusal(old.Kind) && a.Kind != Notify {
			return x.fault(a.Line, "'%s' cannot be done together with '%s' in line %d", a.Kind, old.Kind, old.Line)
		}
	}
	return nil
}

func refusal(k ActionKind) bool { return k == Reject || k == EReject }

// finish adds the implicit keep and what the script made of the message.
func (x *run) finish() error {
	if x.keep {
		a := Action{Kind: Keep, Implicit: true, Flags: x.actionFlags(nil), Edited: x.snapshot()}
		merged := slices.ContainsFunc(x.result.Actions, func(old Action) bool { return old.stores() && old.target() == "INBOX" })
		if !merged {
			x.result.Actions = append(x.result.Actions, a)
		}
	}
	x.result.Edited, x.result.NewBody = x.snapshot(), x.msg.rewritten
	return nil
}
