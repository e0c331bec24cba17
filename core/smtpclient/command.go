package smtpclient

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk/mail"
)

// appendMail appends the MAIL command with the parameters that the peer knows.
//
// A body with octets above 127 goes to a peer without 8BITMIME as it is, without BODY:
// servers that lack the extension today are practically all 8-bit clean, to strip bits
// would destroy the message, and to re-encode it would break its signatures (RFC 6152 §3
// would have us bounce or convert).
func (x *transaction) appendMail(b []byte) []byte {
	env := x.job.Envelope
	b = append(b, "MAIL FROM:<"...)
	b = append(b, env.ReversePath.String()...)
	b = append(b, '>')
	if x.ext.size > 0 || x.ext.eightBit && env.BodyType == mail.Body8BitMIME {
		if x.ext.size > 0 {
			b = append(b, " SIZE="...)
			b = strconv.AppendInt(b, int64(len(x.job.Header.Block()))+x.job.Body.Size, 10)
		}
		if x.ext.eightBit && env.BodyType == mail.Body8BitMIME {
			b = append(b, " BODY=8BITMIME"...)
		}
	}
	if x.utf8 {
		b = append(b, " SMTPUTF8"...)
	}
	if env.RequireTLS && x.ext.requireTLS && x.tls {
		b = append(b, " REQUIRETLS"...)
	}
	if x.ext.dsn {
		switch env.Return {
		case mail.ReturnFull:
			b = append(b, " RET=FULL"...)
		case mail.ReturnHeaders:
			b = append(b, " RET=HDRS"...)
		}
		if env.EnvelopeID != "" {
			b = append(b, " ENVID="...)
			b = appendXtext(b, env.EnvelopeID)
		}
	}
	return append(b, "\r\n"...)
}

// appendRcpt appends a RCPT command.
func (x *transaction) appendRcpt(b []byte, r *mail.Recipient) []byte {
	b = append(b, "RCPT TO:<"...)
	b = append(b, r.Path.String()...)
	b = append(b, '>')
	if x.ext.dsn {
		b = appendNotify(b, r.Notify)
		if typ, addr, ok := strings.Cut(r.ORCPT, ";"); ok && isAtom(typ) && addr != "" {
			b = append(b, " ORCPT="...)
			b = append(b, typ...)
			b = append(b, ';')
			if strings.EqualFold(typ, "utf-8") {
				b = appendUTF8Xtext(b, addr)
			} else {
				b = appendXtext(b, addr)
			}
		}
	}
	return append(b, "\r\n"...)
}

func appendNotify(b []byte, n mail.Notify) []byte {
	if n&mail.NotifyNever != 0 {
		return append(b, " NOTIFY=NEVER"...)
	}
	sep := " NOTIFY="
	add := func(bit mail.Notify, word string) {
		if n&bit != 0 {
			b = append(append(b, sep...), word...)
			sep = ","
		}
	}
	add(mail.NotifySuccess, "SUCCESS")
	add(mail.NotifyFailure, "FAILURE")
	add(mail.NotifyDelay, "DELAY")
	return b
}

func isAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' {
			return false
		}
	}
	return s != ""
}

// appendXtext encodes s as xtext (RFC 3461 §4): nothing in it can end the parameter or
// the line.
func appendXtext(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f || c == '+' || c == '=' {
			b = append(b, '+', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// appendUTF8Xtext encodes s as utf-8-addr-xtext (RFC 6533 §3), which is ASCII.
func appendUTF8Xtext(b []byte, s string) []byte {
	for _, r := range s {
		if r > ' ' && r < 0x7f && r != '+' && r != '=' && r != '\\' {
			b = append(b, byte(r))
			continue
		}
		if r == utf8.RuneError {
			r = '?'
		}
		b = append(b, `\x{`...)
		h := strings.ToUpper(strconv.FormatInt(int64(r), 16))
		if len(h)%2 == 1 {
			b = append(b, '0')
		}
		b = append(append(b, h...), '}')
	}
	return b
}
