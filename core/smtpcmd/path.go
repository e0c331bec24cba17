package smtpcmd

import (
	"errors"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

var errPath = errors.New("not an address in angle brackets")

// cutPath splits the argument of MAIL or RCPT, after the keyword, into the text between the
// angle brackets and the parameters. A '>' inside a quoted string does not end the path.
func cutPath(s string) (path, params string, err error) {
	s = strings.TrimLeft(s, " ") // not in RFC 5321, but in many clients
	if s == "" || s[0] != '<' {
		return "", "", errPath
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			path, params = s[1:i], s[i+1:]
			if params != "" && params[0] != ' ' {
				return "", "", errPath
			}
			return path, params, nil
		}
	}
	return "", "", errPath
}

// cutRoute drops a source route: "@a.example,@b.example:user@c.example" is
// "user@c.example" (RFC 5321 appendix C).
func cutRoute(path string) (string, error) {
	if path == "" || path[0] != '@' {
		return path, nil
	}
	// An IPv6 literal has colons of its own; nobody routes through one.
	route, path, ok := strings.Cut(path, ":")
	if !ok || path == "" {
		return "", errPath
	}
	for hop := range strings.SplitSeq(route, ",") {
		if hop == "" || hop[0] != '@' {
			return "", errPath
		}
		if _, err := mail.ParseDomain(hop[1:]); err != nil {
			return "", errPath
		}
	}
	return path, nil
}

// parseReverse parses the path of MAIL.
func parseReverse(text string) (mail.Path, error) {
	text, err := cutRoute(text)
	if err != nil {
		return mail.Path{}, err
	}
	return mail.ParsePath(text)
}

// parseForward parses the path of RCPT. Postmaster needs no domain (RFC 5321 §4.1.1.3).
func parseForward(text, hostname string) (mail.Path, error) {
	text, err := cutRoute(text)
	switch {
	case err != nil:
		return mail.Path{}, err
	case text == "":
		return mail.Path{}, errors.New("a recipient is needed")
	case strings.EqualFold(text, "postmaster"):
		return mail.MakePath("postmaster", hostname)
	}
	return mail.ParsePath(text)
}

// cutKeyword drops "FROM:" or "TO:", in any case.
func cutKeyword(s, keyword string) (string, bool) {
	if len(s) < len(keyword) || !strings.EqualFold(s[:len(keyword)], keyword) {
		return "", false
	}
	return s[len(keyword):], true
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
