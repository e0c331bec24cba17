package gateway

import (
	"strings"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/sdk/mail"
)

// subaddresses returns the address of a folder of a recipient, user+folder, at the domains whose
// server takes mail there. A folder that no such address can name has none.
func subaddresses(c *config.Config) func(mail.Path, string) (mail.Path, bool) {
	detail := make(map[mail.Domain]bool)
	for _, d := range c.Domains {
		for _, name := range append([]mail.Domain{d.Name}, d.Aliases...) {
			detail[name] = d.Folders == "detail"
		}
	}
	return func(to mail.Path, folder string) (mail.Path, bool) {
		if !detail[to.Domain] {
			return to, false
		}
		user, _, _ := strings.Cut(to.Local, "+")
		p, err := mail.MakePath(user+"+"+folder, to.Domain.String())
		return p, err == nil && user != ""
	}
}
