package smtpcmd

import (
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Rcpt is what RCPT says.
type Rcpt struct {
	Forward mail.Path
	Notify  mail.Notify
	ORCPT   string // "type;address", decoded
}

// ParseRcpt parses the argument of RCPT in a transaction that is one of SMTPUTF8 or not.
// hostname is where a postmaster without a domain is. A zero status means that all is well.
func ParseRcpt(arg, hostname string, utf8 bool, offered Extensions) (Rcpt, mail.Status) {
	var r Rcpt
	rest, ok := cutKeyword(arg, "TO:")
	if !ok {
		return r, mail.Permanent(501, 5, 4, "Syntax: RCPT TO:<address>")
	}
	text, params, err := cutPath(rest)
	if err == nil {
		r.Forward, err = parseForward(text, hostname)
	}
	switch {
	case err != nil:
		return r, mail.Permanent(501, 1, 3, "Bad recipient: "+err.Error())
	case !isASCII(text) && !utf8:
		return r, statusUTF8
	}
	err = eachParam(params, func(key, value string, _ bool) (err error) {
		switch {
		case key == "NOTIFY" && offered.DSN:
			r.Notify, err = parseNotify(value)
		case key == "ORCPT" && offered.DSN:
			r.ORCPT, err = parseORCPT(value, utf8)
		default:
			err = errUnknown
		}
		return err
	})
	if err != nil {
		return r, paramStatus(err)
	}
	return r, mail.Status{}
}

// parseNotify parses NOTIFY (RFC 3461 §4.1).
func parseNotify(value string) (mail.Notify, error) {
	if strings.EqualFold(value, "NEVER") {
		return mail.NotifyNever, nil
	}
	var set mail.Notify
	for word := range strings.SplitSeq(strings.ToUpper(value), ",") {
		var n mail.Notify
		switch word {
		case "SUCCESS":
			n = mail.NotifySuccess
		case "FAILURE":
			n = mail.NotifyFailure
		case "DELAY":
			n = mail.NotifyDelay
		}
		if n == 0 || set&n != 0 {
			return 0, errValue
		}
		set |= n
	}
	return set, nil
}

// parseORCPT parses "type;address" (RFC 3461 §4.2, RFC 6533 §3) and decodes the address.
func parseORCPT(value string, utf8 bool) (string, error) {
	kind, text, ok := strings.Cut(value, ";")
	if !ok || !isKeyword(kind) || len(value) > 500 {
		return "", errValue
	}
	var err error
	if strings.EqualFold(kind, "utf-8") {
		text, err = mail.DecodeUTF8Xtext(text, utf8)
	} else {
		text, err = mail.DecodeXtext(text)
	}
	if err != nil {
		return "", err
	}
	return kind + ";" + text, nil
}

// Append appends the command RCPT with a parameter for each field that says something, and its
// line end. An original recipient without a type or an address is left out.
func (r *Rcpt) Append(b []byte) []byte {
	b = append(b, "RCPT TO:<"...)
	b = append(b, r.Forward.String()...)
	b = append(b, '>')
	if notify := r.Notify.String(); notify != "" {
		b = append(b, " NOTIFY="...)
		b = append(b, notify...)
	}
	if kind, addr, _ := strings.Cut(r.ORCPT, ";"); isKeyword(kind) && addr != "" {
		b = append(b, " ORCPT="...)
		b = mail.AppendORCPT(b, r.ORCPT)
	}
	return append(b, "\r\n"...)
}
