package config

import (
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// SRS is about the reverse-path of mail that an alias or a redirect sends on to another domain: with
// the sender's own, SPF would fail there. Reports come back to us and are passed on.
type SRS struct {
	// Enabled gives such mail a reverse-path of ours.
	// Default: true
	Enabled bool `toml:"enabled"`
	// Domain is that of these addresses. Mail for it has to come to this gateway.
	// Default: "", the hostname.
	Domain mail.Domain `toml:"domain"`
	// Lifetime is for how long reports are passed on; from a day to a year.
	// Default: "21d"
	Lifetime Duration `toml:"lifetime"`
}

func (v *validator) srs() {
	if _, literal := v.c.SRS.Domain.Literal(); literal {
		v.problem("srs.domain", "has to be a name")
	}
	if l := time.Duration(v.c.SRS.Lifetime); l < day || l > 365*day {
		v.problem("srs.lifetime", "is from 1d to 365d")
	}
}
