package smtpcmd

import (
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// ParseHello parses the argument of HELO, EHLO and LHLO. It takes more than host names, because
// many honest clients send something else, but nothing that could end a comment or a quoted
// string in a Received field. A zero status means that all is well.
func ParseHello(arg string) (name string, fault mail.Status) {
	name, _, _ = strings.Cut(arg, " ")
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>"\,;`, r) }) {
		return "", mail.Permanent(501, 5, 2, "A host name or address literal is needed")
	}
	return name, mail.Status{}
}
