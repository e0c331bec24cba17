package sieve

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk/mail"
)

// vacation adds the reply of RFC 5230 §5. It goes to the reverse-path, with a null one.
func (p *planning) vacation(s step, a engine.Action) error {
	to, err := mail.ParsePath(a.Address)
	if err != nil || to.IsZero() {
		return fmt.Errorf("'%s' is no address to answer to", a.Address)
	}
	m := p.message5322("auto-replied (vacation)", "vacation", a.Handle, to.String())
	if err := p.from(m, a.From); err != nil {
		return err
	}
	m.add("To", to.String())
	m.text("Subject", a.Subject)
	m.refer(p.m.Header)
	m.add("X-Auto-Response-Suppress", "All") // what Exchange knows of RFC 3834
	if a.MIME {
		err = m.entity(a.Reason)
	} else {
		err = m.plain(a.Reason)
	}
	if err != nil {
		return err
	}
	p.plan.Vacation(m.header(), m.body)
	return p.fileCopy(a.FCC, m)
}

// notify adds the notifications of RFC 5436 §2.7: one for each address, all the same.
func (p *planning) notify(a engine.Action) error {
	uri := mailtoFields(a.URI)
	m := p.message5322(`auto-notified; owner-email="`+strings.Trim(quoted(p.owner.String()), `"`)+`"`, "notify", a.URI, a.Message)
	if err := p.from(m, a.From); err != nil {
		return err
	}
	m.add("To", strings.Join(a.To, ", "))
	subject := a.Message
	if subject == "" {
		subject = uri["subject"]
	}
	if subject == "" {
		subject = p.subject()
	}
	m.text("Subject", subject)
	m.refer(p.m.Header)
	switch a.Importance {
	case "1":
		m.add("Importance", "high")
	case "3":
		m.add("Importance", "low")
	}
	body := uri["body"]
	if body == "" {
		body = fmt.Sprintf("A message from <%s> has arrived for <%s>.\n", p.m.Envelope.ReversePath, p.given)
	}
	if err := m.plain(body); err != nil {
		return err
	}
	for _, address := range a.To {
		to, err := mail.ParsePath(address)
		if err != nil || to.IsZero() {
			return fmt.Errorf("'%s' is no address to notify", address)
		}
		p.plan.Notify(to, m.header(), m.body)
	}
	return p.fileCopy(a.FCC, m)
}

// quoted keeps what may stand in a quoted string as it is.
func quoted(s string) string { return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) }

// subject is that of the message, as text.
func (p *planning) subject() string {
	if s := decoded(p.m.Header.Get("Subject")); s != "" {
		return s
	}
	return "New message"
}

// mailtoFields are the fields of a mailto URI that say something about the message (RFC 6068 §2); those that
// are ignored are not looked at. The engine has checked the URI.
func mailtoFields(uri string) map[string]string {
	fields := make(map[string]string)
	_, query, _ := strings.Cut(uri, "?")
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if text, err := url.PathUnescape(value); err == nil {
			fields[strings.ToLower(name)] = text
		}
	}
	return fields
}

// message5322 begins a message of the plan. Its Message-ID follows from what it is about: a
// plan that is made again is the same plan.
func (p *planning) message5322(submitted string, about ...string) *composed {
	sum := sha256.Sum256([]byte(strings.Join(append(about, p.m.Envelope.ID, p.owner.String()), "\x00")))
	m := &composed{}
	m.add("Auto-Submitted", submitted)
	m.add("Message-ID", "<sieve."+hex.EncodeToString(sum[:16])+"@"+p.hostname+">")
	m.add("Date", p.clock().Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	return m
}

// maxBody bounds the bodies of messages that scripts send, in bytes.
const maxBody = 64 << 10

var errLong = errors.New("the text of the reply is too long")
