package engine

// mailboxTest has the tests of RFC 5490 and RFC 8579 §4.
func mailboxTest(name string) (testSpec, bool) {
	switch name {
	case "mailboxexists":
		return testSpec{signature{ext: "mailbox", pos: []kind{strList}}, buildMailboxExists}, true
	case "specialuse_exists":
		return testSpec{signature{ext: "special-use", pos: []kind{str, strList}, lead: 1}, buildSpecialUseExists}, true
	case "metadata":
		return testSpec{signature{ext: "mboxmetadata", tags: matchTags(), pos: []kind{str, str, strList}}, buildMetadata}, true
	case "servermetadata":
		return testSpec{signature{ext: "servermetadata", tags: matchTags(), pos: []kind{str, strList}}, buildMetadata}, true
	case "metadataexists":
		return testSpec{signature{ext: "mboxmetadata", pos: []kind{str, strList}}, buildMetadataExists}, true
	case "servermetadataexists":
		return testSpec{signature{ext: "servermetadata", pos: []kind{strList}}, buildMetadataExists}, true
	}
	return testSpec{}, false
}

func buildMailboxExists(c *compiler, b *bound) (cond, *Error) {
	names, err := c.texts(b.pos[0])
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		for _, n := range names {
			if ok, err := x.mailboxExists(x.text(n)); !ok || err != nil {
				return false, err
			}
		}
		return true, nil
	}), nil
}

func (x *run) mailboxExists(name string) (bool, error) {
	if inbox(name) {
		return true, nil
	}
	if x.env.Mailboxes == nil || !validMailbox(name) {
		return false, nil
	}
	return x.env.Mailboxes.Exists(x.ctx, name)
}

// buildSpecialUseExists: with a mailbox, it has all the attributes; without, there is a mailbox for each.
func buildSpecialUseExists(c *compiler, b *bound) (cond, *Error) {
	attributes, err := c.texts(b.pos[len(b.pos)-1])
	if err != nil {
		return nil, err
	}
	for _, t := range attributes {
		if t.constant() && !isSpecialUse(t.lit) {
			return nil, errorAt(t.line, "'%s' is no special-use attribute, as \"\\\\Junk\" is", printable(t.lit))
		}
	}
	var mailbox *text
	if len(b.pos) == 2 {
		t, err := c.text(b.pos[0].Strings[0])
		if err != nil {
			return nil, err
		}
		mailbox = &t
	}
	return condFunc(func(x *run) (bool, error) {
		if x.env.Mailboxes == nil {
			return false, nil
		}
		for _, t := range attributes {
			found, err := x.env.Mailboxes.SpecialUse(x.ctx, x.text(t))
			if err != nil || found == "" {
				return false, err
			}
			if mailbox != nil {
				if want := x.text(*mailbox); found != want && !(inbox(found) && inbox(want)) {
					return false, nil
				}
			}
		}
		return true, nil
	}), nil
}

// buildMetadata looks at the value of an annotation, of a mailbox or of the server.
func buildMetadata(c *compiler, b *bound) (cond, *Error) {
	m, err := c.matcher(b)
	if err != nil {
		return nil, err
	}
	n := len(b.pos)
	names, err := c.leading(b, n-1)
	if err != nil {
		return nil, err
	}
	keys, err := c.keys(m, b.pos[n-1])
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		mailbox, annotation := "", x.text(names[len(names)-1])
		if len(names) == 2 {
			mailbox = x.text(names[0])
		}
		value, ok, err := x.metadata(mailbox, annotation)
		if err != nil || !ok {
			return false, err
		}
		return x.matchValues(m, []string{value}, x.texts(keys))
	}), nil
}

// leading compiles the first n arguments, each a single string.
func (c *compiler) leading(b *bound, n int) ([]text, *Error) {
	list := make([]text, n)
	for i := range list {
		var err *Error
		if list[i], err = c.text(b.pos[i].Strings[0]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (x *run) metadata(mailbox, annotation string) (string, bool, error) {
	if x.env.Mailboxes == nil {
		return "", false, nil
	}
	return x.env.Mailboxes.Metadata(x.ctx, mailbox, annotation)
}

func buildMetadataExists(c *compiler, b *bound) (cond, *Error) {
	names, err := c.leading(b, len(b.pos)-1)
	if err != nil {
		return nil, err
	}
	annotations, err := c.texts(b.pos[len(b.pos)-1])
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		mailbox := ""
		if len(names) == 1 {
			mailbox = x.text(names[0])
		}
		for _, a := range annotations {
			if _, ok, err := x.metadata(mailbox, x.text(a)); !ok || err != nil {
				return false, err
			}
		}
		return true, nil
	}), nil
}
