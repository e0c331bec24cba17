package engine

// refuseCommand has "reject" and "ereject" (RFC 5429).
func refuseCommand(name string) (commandSpec, bool) {
	if name != "reject" && name != "ereject" {
		return commandSpec{}, false
	}
	action := Reject
	if name == "ereject" {
		action = EReject
	}
	return commandSpec{signature{ext: name, pos: []kind{str}}, func(c *compiler, b *bound) (step, *Error) {
		reason, err := c.text(b.pos[0].Strings[0])
		if err != nil {
			return nil, err
		}
		return stepFunc(func(x *run) error {
			x.keep = false
			return x.act(Action{Kind: action, Line: b.Line, Reason: x.text(reason)})
		}), nil
	}}, true
}
