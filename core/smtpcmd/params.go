package smtpcmd

import (
	"errors"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

var (
	errValue   = errors.New("malformed value")
	errUnknown = errors.New("not supported")
)

var statusUTF8 = mail.Permanent(553, 6, 7, "Address needs SMTPUTF8") // RFC 6531 §3.5

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

// decodeXtext decodes xtext of at most max octets.
func decodeXtext(value string, max int) (string, error) {
	if len(value) > max {
		return "", errValue
	}
	return mail.DecodeXtext(value)
}
