// Package builtin names the plugins that are compiled in.
package builtin

import (
	"maps"
	"slices"
	"strings"

	"github.com/postern-mail/postern/plugins/antivirus"
	"github.com/postern-mail/postern/plugins/arc"
	"github.com/postern-mail/postern/plugins/attachments"
	"github.com/postern-mail/postern/plugins/banner"
	"github.com/postern-mail/postern/plugins/bcc"
	"github.com/postern-mail/postern/plugins/dkim"
	"github.com/postern-mail/postern/plugins/dnsbl"
	"github.com/postern-mail/postern/plugins/greylist"
	"github.com/postern-mail/postern/plugins/imapappend"
	"github.com/postern-mail/postern/plugins/journal"
	"github.com/postern-mail/postern/plugins/ldap"
	"github.com/postern-mail/postern/plugins/mailauth"
	"github.com/postern-mail/postern/plugins/maildir"
	"github.com/postern-mail/postern/plugins/milter"
	"github.com/postern-mail/postern/plugins/sieve"
	"github.com/postern-mail/postern/plugins/smtpfilter"
	"github.com/postern-mail/postern/plugins/spam"
	"github.com/postern-mail/postern/sdk"
)

// Plugin is a plugin that is compiled in. It runs as a process of its own all the same:
// the gateway executes itself.
type Plugin struct {
	Make     func() any
	Manifest sdk.Manifest
	Mailbox  bool
	// Filters reports whether one with these settings is a filter; nil: it is, if it can be.
	Filters func(settings []byte) bool
}

// Plugins are all of them, by name.
var Plugins = map[string]Plugin{
	"antivirus":   {Make: func() any { return antivirus.New() }, Manifest: antivirus.Manifest()},
	"arc":         {Make: func() any { return arc.New() }, Manifest: arc.Manifest()},
	"attachments": {Make: func() any { return attachments.New() }, Manifest: attachments.Manifest()},
	"banner":      {Make: func() any { return banner.New() }, Manifest: banner.Manifest()},
	"bcc":         {Make: func() any { return bcc.New() }, Manifest: bcc.Manifest()},
	"dkim":        {Make: func() any { return dkim.New() }, Manifest: dkim.Manifest()},
	"dnsbl":       {Make: func() any { return dnsbl.New() }, Manifest: dnsbl.Manifest()},
	"greylist":    {Make: func() any { return greylist.New() }, Manifest: greylist.Manifest()},
	"imapappend":  {Make: func() any { return imapappend.New() }, Manifest: imapappend.Manifest(), Mailbox: true},
	"journal":     {Make: func() any { return journal.New() }, Manifest: journal.Manifest()},
	"ldap":        {Make: func() any { return ldap.New() }, Manifest: ldap.Manifest()},
	"mailauth":    {Make: func() any { return mailauth.New() }, Manifest: mailauth.Manifest()},
	"maildir":     {Make: func() any { return maildir.New() }, Manifest: maildir.Manifest(), Mailbox: true},
	"milter":      {Make: func() any { return milter.New() }, Manifest: milter.Manifest()},
	"sieve":       {Make: func() any { return sieve.New() }, Manifest: sieve.Manifest(), Filters: sieve.Filters},
	"smtpfilter":  {Make: func() any { return smtpfilter.New() }, Manifest: smtpfilter.Manifest()},
	"spam":        {Make: func() any { return spam.New() }, Manifest: spam.Manifest()},
}

// Names lists them for people.
func Names() string { return strings.Join(slices.Sorted(maps.Keys(Plugins)), ", ") }
