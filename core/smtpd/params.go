package smtpd

import (
	"errors"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// mailArgument is what MAIL said.
type mailArgument struct {
	reverse    mail.Path
	size       int64
	body       mail.BodyType
	utf8       bool
	requireTLS bool
	ret        mail.Return
	envelopeID string
}

// pathArgument is what RCPT said.
type pathArgument struct {
	path   mail.Path
	notify mail.Notify
	orcpt  string
}

var (
	errValue   = errors.New("malformed value")
	errUnknown = errors.New("not supported")
)

var statusUTF8 = mail.Permanent(553, 6, 7, "Address needs SMTPUTF8") // RFC 6531 §3.5

// parseMail parses the argument of MAIL. A zero status means that all is well.
func (s *session) parseMail(arg string) (mailArgument, mail.Status) {
	var a mailArgument
	rest, ok := cutKeyword(arg, "FROM:")
	if !ok {
		return a, mail.Permanent(501, 5, 4, "Syntax: MAIL FROM:<address>")
	}
	text, params, err := cutPath(rest)
	if err == nil {
		a.reverse, err = parseReverse(text)
	}
	if err != nil {
		return a, mail.Permanent(501, 1, 7, "Bad sender: "+err.Error())
	}
	err = eachParam(params, func(key, value string, has bool) error { return s.mailParam(&a, key, value, has) })
	switch {
	case err != nil:
		return a, paramStatus(err)
	case !isASCII(text) && !a.utf8:
		return a, statusUTF8
	case a.size > s.server.opt.Limits.MessageSize:
		return a, mail.Permanent(552, 3, 4, "Message is too large") // RFC 1870 §6.1
	}
	return a, mail.Status{}
}

func (s *session) mailParam(a *mailArgument, key, value string, has bool) (err error) {
	o := &s.server.opt
	switch {
	case key == "SIZE":
		if value == "" || len(value) > 20 || strings.Trim(value, "0123456789") != "" {
			return errValue
		}
		a.size, err = strconv.ParseInt(value, 10, 64)
		return err
	case key == "BODY":
		switch {
		case strings.EqualFold(value, "8BITMIME"):
			a.body = mail.Body8BitMIME
		case !strings.EqualFold(value, "7BIT"):
			return errValue // BINARYMIME is not offered
		}
		return nil
	case key == "SMTPUTF8":
		a.utf8 = true
		return without(has)
	case key == "REQUIRETLS" && s.requireTLSOffered():
		a.requireTLS = true
		return without(has)
	case key == "AUTH" && o.Auth != AuthOff:
		// RFC 4954 §5: believed only from trusted peers, and we have none that need it.
		_, err = decodeXtext(value, 500)
		return err
	case key == "RET" && o.DSN:
		switch {
		case strings.EqualFold(value, "FULL"):
			a.ret = mail.ReturnFull
		case strings.EqualFold(value, "HDRS"):
			a.ret = mail.ReturnHeaders
		default:
			return errValue
		}
		return nil
	case key == "ENVID" && o.DSN:
		a.envelopeID, err = decodeXtext(value, 100) // RFC 3461 §4.4
		return err
	}
	return errUnknown
}

// parseRcpt parses the argument of RCPT.
func (s *session) parseRcpt(arg string) (pathArgument, mail.Status) {
	var a pathArgument
	rest, ok := cutKeyword(arg, "TO:")
	if !ok {
		return a, mail.Permanent(501, 5, 4, "Syntax: RCPT TO:<address>")
	}
	text, params, err := cutPath(rest)
	if err == nil {
		a.path, err = parseForward(text, s.server.opt.Hostname)
	}
	switch {
	case err != nil:
		return a, mail.Permanent(501, 1, 3, "Bad recipient: "+err.Error())
	case !isASCII(text) && !s.env.UTF8:
		return a, statusUTF8
	}
	err = eachParam(params, func(key, value string, _ bool) (err error) {
		switch {
		case key == "NOTIFY" && s.server.opt.DSN:
			a.notify, err = parseNotify(value)
		case key == "ORCPT" && s.server.opt.DSN:
			a.orcpt, err = parseORCPT(value, s.env.UTF8)
		default:
			err = errUnknown
		}
		return err
	})
	if err != nil {
		return a, paramStatus(err)
	}
	return a, mail.Status{}
}

func paramStatus(err error) mail.Status {
	if errors.Is(err, errUnknown) {
		return mail.Permanent(555, 5, 4, err.Error()) // RFC 5321 §4.1.1.11
	}
	return mail.Permanent(501, 5, 4, err.Error())
}

// paramError names the parameter, which is known to be a keyword.
type paramError struct {
	key string
	err error
}

func (e *paramError) Error() string { return "Parameter " + e.key + ": " + e.err.Error() }
func (e *paramError) Unwrap() error { return e.err }

// eachParam calls f for each esmtp-param (RFC 5321 §4.1.2), with the keyword in upper case.
// No parameter may come twice.
func eachParam(params string, f func(key, value string, has bool) error) error {
	var seen []string
	for params = strings.TrimLeft(params, " "); params != ""; params = strings.TrimLeft(params, " ") {
		var word string
		word, params, _ = strings.Cut(params, " ")
		key, value, has := strings.Cut(word, "=")
		if !isKeyword(key) || has && (value == "" || strings.IndexByte(value, '=') >= 0) {
			return errors.New("malformed parameter")
		}
		key = strings.ToUpper(key)
		for _, k := range seen {
			if k == key {
				return &paramError{key, errors.New("given twice")}
			}
		}
		seen = append(seen, key)
		if err := f(key, value, has); err != nil {
			return &paramError{key, err}
		}
	}
	return nil
}

// isKeyword reports whether s is an esmtp-keyword.
func isKeyword(s string) bool {
	if s == "" || s[0] == '-' || len(s) > 40 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// without is for parameters that take no value.
func without(has bool) error {
	if has {
		return errValue
	}
	return nil
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
