package main

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/pluginhost"
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

// builtin is a plugin that is compiled in. It runs as a process of its own all the same:
// the gateway executes itself.
type builtin struct {
	make     func() any
	manifest sdk.Manifest
	mailbox  bool
	// filters reports whether one with these settings is a filter; nil: it is, if it can be.
	filters func(settings []byte) bool
}

var builtins = map[string]builtin{
	"antivirus":   {make: func() any { return antivirus.New() }, manifest: antivirus.Manifest()},
	"arc":         {make: func() any { return arc.New() }, manifest: arc.Manifest()},
	"attachments": {make: func() any { return attachments.New() }, manifest: attachments.Manifest()},
	"banner":      {make: func() any { return banner.New() }, manifest: banner.Manifest()},
	"bcc":         {make: func() any { return bcc.New() }, manifest: bcc.Manifest()},
	"dkim":        {make: func() any { return dkim.New() }, manifest: dkim.Manifest()},
	"dnsbl":       {make: func() any { return dnsbl.New() }, manifest: dnsbl.Manifest()},
	"greylist":    {make: func() any { return greylist.New() }, manifest: greylist.Manifest()},
	"imapappend":  {make: func() any { return imapappend.New() }, manifest: imapappend.Manifest(), mailbox: true},
	"journal":     {make: func() any { return journal.New() }, manifest: journal.Manifest()},
	"ldap":        {make: func() any { return ldap.New() }, manifest: ldap.Manifest()},
	"mailauth":    {make: func() any { return mailauth.New() }, manifest: mailauth.Manifest()},
	"maildir":     {make: func() any { return maildir.New() }, manifest: maildir.Manifest(), mailbox: true},
	"milter":      {make: func() any { return milter.New() }, manifest: milter.Manifest()},
	"sieve":       {make: func() any { return sieve.New() }, manifest: sieve.Manifest(), filters: sieve.Filters},
	"smtpfilter":  {make: func() any { return smtpfilter.New() }, manifest: smtpfilter.Manifest()},
	"spam":        {make: func() any { return spam.New() }, manifest: spam.Manifest()},
}

// filterOf is the filter that a listed plugin is; false if it is none.
func filterOf(p config.Plugin, host *pluginhost.Host) (*pluginhost.Filter, bool) {
	if len(p.Command) == 0 {
		if b := builtins[cmp.Or(p.Use, p.Name)]; b.filters != nil && !b.filters(p.Settings.TOML) {
			return nil, false
		}
	}
	return host.Filter(p.Name)
}

func builtinNames() string { return strings.Join(slices.Sorted(maps.Keys(builtins)), ", ") }
