package smtpcmd

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk/mail"
)

// Verb is the word that a command begins with.
type Verb uint8

// The verbs.
const (
	VerbUnknown Verb = iota
	VerbHelo
	VerbEhlo // LHLO as well
	VerbMail
	VerbRcpt
	VerbData
	VerbBdat
	VerbRset
	VerbQuit
	VerbAuth
	VerbStartTLS
	VerbNoop
	VerbVrfy
	VerbUnimplemented
	VerbForeign // another protocol's
)

// Parse splits a command line, without its line end, into verb and argument. A status that is
// not zero is the reply to a line that no command may be.
func Parse(line []byte, lmtp bool) (v Verb, arg string, fault mail.Status) {
	if fault = lineFault(line); !fault.IsZero() {
		return VerbUnknown, "", fault
	}
	word, rest, _ := bytes.Cut(line, []byte{' '})
	return verbOf(word, lmtp), strings.Trim(string(rest), " "), fault
}

// lineFault refuses characters that no command has.
func lineFault(line []byte) mail.Status {
	ascii := true
	for _, c := range line {
		switch {
		case c == '\r':
			return mail.Permanent(500, 5, 2, "Lines must end in CRLF")
		case c < ' ' || c == 0x7f:
			return mail.Permanent(501, 5, 2, "Control character in a command")
		case c >= 0x80:
			ascii = false
		}
	}
	if !ascii && !utf8.Valid(line) {
		return mail.Permanent(501, 5, 2, "Command is not valid UTF-8")
	}
	return mail.Status{}
}

// verbOf knows the verbs of RFC 5321 §4.1.1 and its extensions, and those of other
// protocols that are led here to make us say or do something (cross-protocol attacks).
func verbOf(word []byte, lmtp bool) Verb {
	var upper [8]byte
	if len(word) > len(upper) {
		return VerbUnknown
	}
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	switch string(upper[:len(word)]) {
	case "HELO":
		return VerbHelo
	case "EHLO":
		if lmtp {
			return VerbUnknown
		}
		return VerbEhlo
	case "LHLO":
		if !lmtp {
			return VerbUnknown
		}
		return VerbEhlo
	case "MAIL":
		return VerbMail
	case "RCPT":
		return VerbRcpt
	case "DATA":
		return VerbData
	case "BDAT":
		return VerbBdat
	case "RSET":
		return VerbRset
	case "QUIT":
		return VerbQuit
	case "AUTH":
		return VerbAuth
	case "STARTTLS":
		return VerbStartTLS
	case "NOOP":
		return VerbNoop
	case "VRFY":
		return VerbVrfy
	case "EXPN", "HELP", "SEND", "SOML", "SAML", "TURN", "ETRN":
		return VerbUnimplemented
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "PROXY", "HOST:":
		return VerbForeign
	}
	return VerbUnknown
}
