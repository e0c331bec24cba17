package mailauth

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/peer"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// AuthservID is the name under which results are given. Default: the gateway's hostname.
	AuthservID string `toml:"authserv_id"`
	// DMARC is "enforce" (do what the author's domain wants) or "report" (say so only).
	// Default: "enforce".
	DMARC string `toml:"dmarc"`
	// RejectAction is what becomes of mail that its domain wants rejected: "reject" or
	// "quarantine". Default: "reject".
	RejectAction string `toml:"reject_action"`
	// TempError is what becomes of mail whose policy the DNS does not tell now: "accept" or
	// "tempfail". Default: "accept".
	TempError string `toml:"temperror"`
	// Override names author domains (with those below them) and client networks whose mail
	// no policy is applied to. Default: none.
	Override []string `toml:"override"`
	// TrustedSealers are domains whose ARC seals are believed when they say that DMARC
	// passed before the message was changed. Default: none.
	TrustedSealers []string `toml:"trusted_sealers"`
	// MaxSignatures is how many DKIM signatures are verified. Default: 5.
	MaxSignatures int `toml:"max_signatures"`
	// Timeout is how long the DNS is waited for, in each of two rounds. Default: 6s.
	Timeout time.Duration `toml:"timeout"`
	// Reports mails aggregate reports to the domains that want them; without it the data is
	// only kept.
	Reports Reports `toml:"reports"`
}

// Reports are the settings of aggregate reports.
type Reports struct {
	// From is the address that reports come from. Its mail has to pass DMARC. Empty: no reports are sent.
	From string `toml:"from"`
	// Org is the name of who reports. Default: the domain of From.
	Org string `toml:"org"`
	// Email is where questions about reports go. Default: From.
	Email string `toml:"email"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{DMARC: "enforce", RejectAction: "reject", TempError: "accept", MaxSignatures: 5, Timeout: 6 * time.Second}
}

// policySettings are the settings that decide, checked.
type policySettings struct {
	enforce, quarantineRejects, tempfail bool
	domains                              []mail.Domain // whose mail is let through
	networks                             peer.Networks
	sealers                              []mail.Domain
}

// check returns the settings that decide, and every fault there is.
func (s Settings) check() (policySettings, error) {
	var p policySettings
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("settings: "+format, args...)) }
	choose := func(key, value, no, yes string) bool {
		if value != no && value != yes {
			fault("%s is %q; it has to be %q or %q", key, value, no, yes)
		}
		return value == yes
	}
	p.enforce = choose("dmarc", s.DMARC, "report", "enforce")
	p.quarantineRejects = choose("reject_action", s.RejectAction, "reject", "quarantine")
	p.tempfail = choose("temperror", s.TempError, "accept", "tempfail")
	for _, text := range s.Override {
		if n, err := peer.ParseNetwork(text); err == nil {
			p.networks = append(p.networks, n)
		} else if d, err := mail.ParseDomain(text); err == nil && !strings.Contains(text, "/") {
			p.domains = append(p.domains, d)
		} else {
			fault("override: %q is neither a domain nor a network; write it as in \"lists.example.org\" or \"192.0.2.0/24\"", text)
		}
	}
	for _, text := range s.TrustedSealers {
		d, err := mail.ParseDomain(text)
		if err != nil {
			fault("trusted_sealers: %w", err)
		}
		p.sealers = append(p.sealers, d)
	}
	if s.MaxSignatures < 1 || s.MaxSignatures > 50 {
		fault("max_signatures is %d; it has to be from 1 to 50", s.MaxSignatures)
	}
	if s.Timeout < 100*time.Millisecond || s.Timeout > 5*time.Minute {
		fault("timeout is %s; it has to be from 100ms to 5m", s.Timeout)
	}
	return p, errors.Join(faults...)
}
