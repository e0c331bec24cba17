package engine

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// notifyCommand has "notify" (RFC 5435).
func notifyCommand(name string) (commandSpec, bool) {
	if name != "notify" {
		return commandSpec{}, false
	}
	return commandSpec{signature{ext: "enotify", tags: append(copyTags(),
		tagSpec{name: "from", value: str}, tagSpec{name: "importance", value: str}, tagSpec{name: "options", value: strList},
		tagSpec{name: "message", value: str},
	), pos: []kind{str}}, buildNotify}, true
}

// maxNotified bounds the addresses of one notification.
const maxNotified = 8

func buildNotify(c *compiler, b *bound) (step, *Error) {
	method, err := c.text(b.pos[0].Strings[0])
	if err != nil {
		return nil, err
	}
	if method.constant() {
		if _, ok := parseMailto(method.lit); !ok {
			return nil, errorAt(method.line, "'%s' is no method that can be used here: \"mailto:somebody@example.org\" is", printable(method.lit))
		}
	}
	values := make(map[string]text)
	for _, tag := range []string{"from", "importance", "message"} {
		if values[tag], err = c.optional(b, tag, ""); err != nil {
			return nil, err
		}
	}
	if i := values["importance"]; b.has("importance") && i.constant() && !isImportance(i.lit) {
		return nil, errorAt(i.line, "':importance' is \"1\", \"2\" or \"3\", not %q", printable(i.lit))
	}
	if f := values["from"]; b.has("from") && f.constant() && !validAddress(f.lit) {
		return nil, errorAt(f.line, "':from' names no address: '%s'", printable(f.lit))
	}
	var options []text
	if a, ok := b.tags["options"]; ok {
		if options, err = c.texts(a); err != nil {
			return nil, err
		}
		for _, o := range options {
			if o.constant() && !optionPattern.MatchString(o.lit) {
				return nil, errorAt(o.line, "'%s' is no option: \"name=value\" is", printable(o.lit))
			}
		}
	}
	fcc, err := c.fileCopy(b)
	if err != nil {
		return nil, err
	}
	return stepFunc(func(x *run) error {
		uri := x.text(method)
		to, ok := parseMailto(uri)
		if !ok {
			return x.fault(b.Line, "'%s' is no method that can be used here", printable(uri))
		}
		a := Action{Kind: Notify, Line: b.Line, Method: "mailto", URI: uri, To: to, Message: x.text(values["message"]),
			From: x.text(values["from"]), Importance: x.text(values["importance"]), Options: x.texts(options), FCC: x.fileCopy(fcc)}
		switch {
		case a.Importance != "" && !isImportance(a.Importance):
			return x.fault(b.Line, "':importance' is \"1\", \"2\" or \"3\", not %q", printable(a.Importance))
		case a.From != "" && !validAddress(a.From):
			return x.fault(b.Line, "':from' names no address: '%s'", printable(a.From))
		case len(to) == 0:
			x.explain(b.Line, "  nobody to notify")
			return nil
		case x.automatic():
			x.explain(b.Line, "  no notification of an automatic message")
			return nil
		}
		return x.act(a)
	}), nil
}

// optionPattern is the syntax of :options (RFC 5435 §3.5).
var optionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*=[^\x00\n\r]*$`)

// mailtoPattern has the characters that a mailto URI may have in its path, and in its fields (RFC 6068 §2).
var mailtoPattern = regexp.MustCompile(`^(?:[A-Za-z0-9._~:@!$'()*+,;-]|%[0-9A-Fa-f]{2})*(?:\?(?:[A-Za-z0-9._~:@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?$`)

func isImportance(s string) bool { return s == "1" || s == "2" || s == "3" }

// automatic reports whether nobody must be notified of the message, lest notifications go round in circles
// (RFC 5436 §2.7).
func (x *run) automatic() bool {
	return slices.ContainsFunc(x.msg.all("Auto-Submitted"), func(f field) bool { return !humanSubmitted(x.msg.value(f)) })
}

// parseMailto returns the addresses of a mailto URI (RFC 6068): those of its path, and of "to" and "cc". Other fields
// than these, and than "subject" and "body", are not looked at here; "bcc" and what belongs to the gateway never has an
// effect (RFC 5436 §2.3).
func parseMailto(uri string) ([]string, bool) {
	scheme, rest, found := strings.Cut(uri, ":")
	if !found || !strings.EqualFold(scheme, "mailto") || len(uri) > 4096 || !mailtoPattern.MatchString(rest) {
		return nil, false
	}
	path, query, _ := strings.Cut(rest, "?")
	lists := []string{path}
	for _, pair := range strings.Split(query, "&") {
		if pair == "" {
			continue
		}
		name, value, found := strings.Cut(pair, "=")
		plain, err := url.PathUnescape(value)
		forbidden := "\r\n\x00"
		if strings.EqualFold(name, "body") {
			forbidden = "\x00"
		}
		if !found || err != nil || !isHeaderName(name) || strings.Contains(name, "%") || strings.ContainsAny(plain, forbidden) {
			return nil, false
		}
		if strings.EqualFold(name, "to") || strings.EqualFold(name, "cc") {
			lists = append(lists, value)
		}
	}
	var to []string
	for _, l := range lists {
		l, err := url.PathUnescape(l)
		if err != nil || strings.ContainsAny(l, "\r\n\x00") {
			return nil, false
		}
		for p := (addressParser{s: l}); p.space() && p.pos < len(l); {
			a, group, ok := p.member()
			if !ok || group || p.route || p.space() && p.pos < len(l) && l[p.pos] != ',' {
				return nil, false
			}
			if !slices.Contains(to, a.full) {
				to = append(to, a.full)
			}
			if p.pos++; p.pos == len(l) { // nothing behind a comma
				return nil, false
			}
		}
	}
	return to, len(to) <= maxNotified
}

// notifyTest has the tests of RFC 5435 §4 and §5.
func notifyTest(name string) (testSpec, bool) {
	switch name {
	case "valid_notify_method":
		return testSpec{signature{ext: "enotify", pos: []kind{strList}}, buildValidMethod}, true
	case "notify_method_capability":
		return testSpec{signature{ext: "enotify", tags: matchTags(), pos: []kind{str, str, strList}}, buildMethodCapability}, true
	}
	return testSpec{}, false
}

func buildValidMethod(c *compiler, b *bound) (cond, *Error) {
	methods, err := c.texts(b.pos[0])
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		for _, m := range methods {
			if _, ok := parseMailto(x.text(m)); !ok {
				return false, nil
			}
		}
		return true, nil
	}), nil
}

// buildMethodCapability: of mail nobody knows whether it will be read soon (RFC 5436 §2.1).
func buildMethodCapability(c *compiler, b *bound) (cond, *Error) {
	m, err := c.matcher(b)
	if err != nil {
		return nil, err
	}
	names, err := c.leading(b, 2)
	if err != nil {
		return nil, err
	}
	keys, err := c.keys(m, b.pos[2])
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		if _, ok := parseMailto(x.text(names[0])); !ok || !strings.EqualFold(x.text(names[1]), "online") {
			return false, nil
		}
		return x.matchValues(m, []string{"maybe"}, x.texts(keys))
	}), nil
}
