package engine

// fileCopy is what the tags of RFC 8580 ask for.
type fileCopy struct {
	mailbox text
	use     *text
	flags   *[]text
	create  bool
	wanted  bool
}

// copyTags are :fcc and what goes with it.
func copyTags() []tagSpec {
	return []tagSpec{
		{name: "fcc", value: str, ext: "fcc"},
		{name: "create", ext: "mailbox"},
		{name: "flags", value: strList, ext: "imap4flags"},
		{name: "specialuse", value: str, ext: "special-use"},
	}
}

func (c *compiler) fileCopy(b *bound) (f fileCopy, err *Error) {
	if !b.has("fcc") {
		for _, tag := range []string{"create", "flags", "specialuse"} {
			if b.has(tag) {
				return f, errorAt(b.Line, "':%s' needs ':fcc'", tag)
			}
		}
		return f, nil
	}
	f.wanted, f.create = true, b.has("create")
	if f.mailbox, err = c.optional(b, "fcc", ""); err != nil {
		return f, err
	}
	if f.mailbox.constant() && !validMailbox(f.mailbox.lit) {
		return f, errorAt(b.Line, "'%s' is no name of a mailbox", printable(f.mailbox.lit))
	}
	if a, ok := b.tags["specialuse"]; ok {
		t, err := c.text(a.Strings[0])
		if err != nil {
			return f, err
		}
		if t.constant() && !isSpecialUse(t.lit) {
			return f, errorAt(a.Line, "'%s' is no special-use attribute", printable(t.lit))
		}
		f.use = &t
	}
	f.flags, err = c.flagsTag(b)
	return f, err
}

// fileCopy is the copy that is wanted; nil: none.
func (x *run) fileCopy(f fileCopy) *FileCopy {
	if !f.wanted {
		return nil
	}
	made := &FileCopy{Mailbox: x.text(f.mailbox), Create: f.create}
	if !validMailbox(made.Mailbox) {
		made.Mailbox = "INBOX"
	}
	if f.use != nil {
		made.SpecialUse = x.text(*f.use)
	}
	if f.flags != nil {
		made.Flags = x.actionFlags(f.flags)
	}
	return made
}
