package engine

import (
	"slices"
	"strings"
	"time"
)

// vacationCommand has "vacation" (RFC 5230, RFC 6131).
func vacationCommand(name string) (commandSpec, bool) {
	if name != "vacation" {
		return commandSpec{}, false
	}
	return commandSpec{signature{ext: "vacation", tags: append(copyTags(),
		tagSpec{name: "days", value: num, group: "period"}, tagSpec{name: "seconds", value: num, group: "period", ext: "vacation-seconds"},
		tagSpec{name: "subject", value: str}, tagSpec{name: "from", value: str}, tagSpec{name: "addresses", value: strList},
		tagSpec{name: "mime"}, tagSpec{name: "handle", value: str},
	), pos: []kind{str}}, buildVacation}, true
}

// How long senders are remembered.
const (
	vacationPeriod    = 7 * 24 * time.Hour
	vacationPeriodMin = 24 * time.Hour // for :days
	vacationPeriodMax = 365 * 24 * time.Hour
)

// vacationStep is a vacation command.
type vacationStep struct {
	line                          int
	subject, from, handle, reason text
	addresses                     []text
	hasSubject, hasHandle, mime   bool
	period                        time.Duration
	fcc                           fileCopy
}

func buildVacation(c *compiler, b *bound) (step, *Error) {
	v := &vacationStep{line: b.Line, period: vacationPeriod, mime: b.has("mime"), hasSubject: b.has("subject"), hasHandle: b.has("handle")}
	if a, ok := b.tags["days"]; ok {
		v.period = clampPeriod(a.Number, 24*time.Hour, vacationPeriodMin)
	}
	if a, ok := b.tags["seconds"]; ok {
		v.period = clampPeriod(a.Number, time.Second, 0)
	}
	var err *Error
	for tag, t := range map[string]*text{"subject": &v.subject, "from": &v.from, "handle": &v.handle} {
		if *t, err = c.optional(b, tag, ""); err != nil {
			return nil, err
		}
	}
	if b.has("from") && v.from.constant() && !validAddress(v.from.lit) {
		return nil, errorAt(v.from.line, "':from' names no address: '%s'", printable(v.from.lit))
	}
	if a, ok := b.tags["addresses"]; ok {
		if v.addresses, err = c.texts(a); err != nil {
			return nil, err
		}
	}
	if v.reason, err = c.text(b.pos[0].Strings[0]); err != nil {
		return nil, err
	}
	v.fcc, err = c.fileCopy(b)
	return v, err
}

func clampPeriod(n int64, unit, least time.Duration) time.Duration {
	if n > int64(vacationPeriodMax/unit) {
		return vacationPeriodMax
	}
	return max(least, time.Duration(n)*unit)
}

func (v *vacationStep) run(x *run) error {
	if x.vacation { // RFC 5230 §4.7
		return x.fault(v.line, "'vacation' is done a second time")
	}
	x.vacation = true
	for _, a := range x.result.Actions {
		if refusal(a.Kind) {
			return x.fault(v.line, "'vacation' cannot be done together with '%s' in line %d", a.Kind, a.Line)
		}
	}
	a := Action{Kind: Vacation, Line: v.line, Address: x.env.From, Reason: x.text(v.reason), MIME: v.mime, Period: v.period,
		Subject: headerText(x.text(v.subject)), From: x.text(v.from)}
	if a.From != "" && !validAddress(a.From) {
		x.explain(v.line, "  ':from' names no address: '%s'", printable(a.From))
		a.From = "" // RFC 5230 §4.3: rather the default than no reply
	}
	a.FCC = x.fileCopy(v.fcc)
	a.Handle = x.text(v.handle)
	if !v.hasHandle { // RFC 5230 §4.2: the same arguments are the same reply
		a.Handle = memoryKey("text", a.Subject, a.From, a.Reason, x.text(v.subject))
	}
	if why := x.noReply(x.texts(v.addresses)); why != "" {
		x.explain(v.line, "  no reply: %s", why)
		return nil
	}
	if a.Subject == "" {
		a.Subject = x.replySubject()
	}
	key := memoryKey("vacation", a.Handle, strings.ToLower(x.env.From))
	if v.period > 0 {
		seen, err := x.remembered(key)
		if err != nil {
			return err
		}
		if seen {
			x.explain(v.line, "  no reply: %s had one already", x.env.From)
			return nil
		}
		x.result.Remember = append(x.result.Remember, Mark{key, v.period})
	}
	return x.act(a)
}

// replySubject is RFC 5230 §4.3.
func (x *run) replySubject() string {
	if list := x.msg.all("Subject"); len(list) > 0 {
		if s := x.msg.value(list[0]); s != "" {
			return cut(headerText("Auto: "+s), 512)
		}
	}
	return "Automated reply"
}

// headerText makes text one line without control characters.
func headerText(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ReplaceAll(s, "\r\n", " ")))
}

// noReply says why a message gets no automatic reply (RFC 5230 §4.5 and §4.6, RFC 3834 §2); "" if it gets one.
func (x *run) noReply(addresses []string) string {
	from := strings.ToLower(x.env.From)
	own := x.ownAddresses(addresses)
	switch {
	case from == "":
		return "it has no sender"
	case robot(from):
		return "a program sent it"
	case own[x.base(from)]:
		return "the owner sent it"
	}
	for _, f := range x.msg.fields {
		switch name := strings.ToLower(f.name); {
		case strings.HasPrefix(name, "list-"):
			return "it came over a mailing list"
		case name == "auto-submitted" && !humanSubmitted(x.msg.value(f)):
			return "it is an automatic message"
		case name == "precedence" && slices.Contains([]string{"bulk", "junk", "list"}, strings.ToLower(x.msg.value(f))):
			return "it is bulk mail"
		case name == "x-auto-response-suppress" && suppresses(x.msg.value(f)):
			return "it asks for no automatic reply"
		}
	}
	if !x.addressed(own) {
		return "it is not addressed to the owner"
	}
	return ""
}

// humanSubmitted reads Auto-Submitted (RFC 3834 §5).
func humanSubmitted(value string) bool {
	keyword, _, _ := strings.Cut(value, ";")
	if i := strings.IndexByte(keyword, '('); i >= 0 {
		keyword = keyword[:i]
	}
	return strings.EqualFold(strings.TrimSpace(keyword), "no")
}

func suppresses(value string) bool {
	for _, w := range strings.Split(strings.ToLower(value), ",") {
		if w = strings.TrimSpace(w); w == "all" || w == "oof" || w == "autoreply" {
			return true
		}
	}
	return false
}

// robot reports whether nobody reads what is sent to an address (RFC 5230 §4.6).
func robot(address string) bool {
	local, _, _ := strings.Cut(address, "@")
	return local == "mailer-daemon" || local == "listserv" || local == "majordomo" || local == "noreply" || local == "no-reply" ||
		strings.HasPrefix(local, "owner-") || strings.HasSuffix(local, "-request") || strings.HasSuffix(local, "-owner") ||
		strings.HasSuffix(local, "-bounces") || strings.HasSuffix(local, "-relay")
}

// base is an address in lower case without its detail.
func (x *run) base(address string) string {
	address = strings.ToLower(address)
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address
	}
	user, _, _ := strings.Cut(address[:at], x.delimiter())
	return user + address[at:]
}

func (x *run) ownAddresses(more []string) map[string]bool {
	own := map[string]bool{x.base(x.env.To): true}
	for _, list := range [][]string{x.env.Addresses, more} {
		for _, s := range list {
			for _, a := range parseAddresses(s) {
				own[x.base(a.full)] = true
			}
		}
	}
	return own
}

// addressed reports whether a recipient field names the owner.
func (x *run) addressed(own map[string]bool) bool {
	for _, name := range []string{"To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"} {
		for _, f := range x.msg.all(name) {
			for _, a := range parseAddresses(unfold(f.raw)) {
				if own[x.base(a.full)] {
					return true
				}
			}
		}
	}
	return false
}
