package smtpcmd

import (
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Mail is what MAIL says.
type Mail struct {
	Reverse    mail.Path
	Size       int64 // octets, 0: not said
	Body       mail.BodyType
	UTF8       bool
	RequireTLS bool
	Return     mail.Return
	EnvelopeID string // decoded
}

// Extensions are those that a server may offer or not, as far as MAIL and RCPT have parameters
// of them. Of the others the parsers know SIZE, 8BITMIME and SMTPUTF8 at all times.
type Extensions struct {
	DSN        bool // RFC 3461
	Auth       bool // RFC 4954
	RequireTLS bool // RFC 8689
}

// ParseMail parses the argument of MAIL. A zero status means that all is well.
func ParseMail(arg string, offered Extensions) (Mail, mail.Status) {
	var m Mail
	rest, ok := cutKeyword(arg, "FROM:")
	if !ok {
		return m, mail.Permanent(501, 5, 4, "Syntax: MAIL FROM:<address>")
	}
	text, params, err := cutPath(rest)
	if err == nil {
		m.Reverse, err = parseReverse(text)
	}
	if err != nil {
		return m, mail.Permanent(501, 1, 7, "Bad sender: "+err.Error())
	}
	err = eachParam(params, func(key, value string, has bool) error { return m.param(key, value, has, offered) })
	switch {
	case err != nil:
		return m, paramStatus(err)
	case !isASCII(text) && !m.UTF8:
		return m, statusUTF8
	}
	return m, mail.Status{}
}

func (m *Mail) param(key, value string, has bool, offered Extensions) (err error) {
	switch {
	case key == "SIZE":
		if value == "" || len(value) > 20 || strings.Trim(value, "0123456789") != "" {
			return errValue
		}
		m.Size, err = strconv.ParseInt(value, 10, 64)
		return err
	case key == "BODY":
		switch {
		case strings.EqualFold(value, "8BITMIME"):
			m.Body = mail.Body8BitMIME
		case !strings.EqualFold(value, "7BIT"):
			return errValue // BINARYMIME is not offered
		}
		return nil
	case key == "SMTPUTF8":
		m.UTF8 = true
		return without(has)
	case key == "REQUIRETLS" && offered.RequireTLS:
		m.RequireTLS = true
		return without(has)
	case key == "AUTH" && offered.Auth:
		// RFC 4954 §5: believed only from trusted peers, and we have none that need it.
		_, err = decodeXtext(value, 500)
		return err
	case key == "RET" && offered.DSN:
		switch {
		case strings.EqualFold(value, "FULL"):
			m.Return = mail.ReturnFull
		case strings.EqualFold(value, "HDRS"):
			m.Return = mail.ReturnHeaders
		default:
			return errValue
		}
		return nil
	case key == "ENVID" && offered.DSN:
		m.EnvelopeID, err = decodeXtext(value, 100) // RFC 3461 §4.4
		return err
	}
	return errUnknown
}

// Append appends the command MAIL with a parameter for each field that says something, and its
// line end.
func (m *Mail) Append(b []byte) []byte {
	b = append(b, "MAIL FROM:<"...)
	b = append(b, m.Reverse.String()...)
	b = append(b, '>')
	if m.Size > 0 {
		b = append(b, " SIZE="...)
		b = strconv.AppendInt(b, m.Size, 10)
	}
	if m.Body == mail.Body8BitMIME {
		b = append(b, " BODY=8BITMIME"...)
	}
	if m.UTF8 {
		b = append(b, " SMTPUTF8"...)
	}
	if m.RequireTLS {
		b = append(b, " REQUIRETLS"...)
	}
	if ret := m.Return.String(); ret != "" {
		b = append(b, " RET="...)
		b = append(b, ret...)
	}
	if m.EnvelopeID != "" {
		b = append(b, " ENVID="...)
		b = mail.AppendXtext(b, m.EnvelopeID)
	}
	return append(b, "\r\n"...)
}
