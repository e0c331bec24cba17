// Package samples is what plugins have to have an answer to, for package sdktest and its suite.
package samples

import (
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Events are one of each type, with all that can be known and with as little as there may be.
func Events() []sdk.Event {
	alice, bob := mail.MustPath("alice@example.com"), mail.MustPath("bob@example.org")
	statuses := map[sdk.EventType]mail.Status{
		sdk.EventDelivered: mail.OK(250, 0, 0, "OK"),
		sdk.EventDeferred:  mail.Temporary(451, 4, 1, "Connection timed out"),
		sdk.EventBounced:   mail.Permanent(550, 1, 1, "No such user \u00e9 "+strings.Repeat("x", 900)),
	}
	var all []sdk.Event
	seq := uint64(41)
	for t := sdk.EventAccepted; t <= sdk.EventDiscarded; t++ {
		seq++
		full := sdk.Event{Seq: seq, Type: t, ID: "0c1f3k9w2m4xq", Family: "0c1f3k9w2m4xq", Recipient: 7, Copy: t%2 == 0, From: alice, To: bob,
			NextHop: "smtp:example.org", Attempts: 3, Status: statuses[t], Reason: "told to"}
		all = append(all, full, sdk.Event{Seq: seq, Type: t, ID: "0c1f3k9w2m4xr"})
	}
	odd := mail.Path{Local: "j\u00f6rg \"x\"", Domain: bob.Domain}
	return append(all, sdk.Event{Seq: seq + 1, Type: sdk.EventDelivered, ID: "0c1f3k9w2m4xs", To: odd, Status: statuses[sdk.EventDelivered]})
}

// Addresses are what clients ask for, in a domain.
func Addresses(domain mail.Domain) []mail.Path {
	var all []mail.Path
	for _, local := range []string{
		"postmaster", "bob", "BOB", "bob+tag", "a b", `quote"\`, "*", "*)(uid=*", "' OR '1'='1' --", "%", "j\u00f6rg",
		"..", "/etc/passwd", strings.Repeat("x", mail.MaxLocal),
	} {
		all = append(all, mail.Path{Local: local, Domain: domain})
	}
	return all
}

// Passwords are what nobody has.
func Passwords() []string {
	return []string{"", "*", "' OR '1'='1", "x\x00", "wrong \u00e9", strings.Repeat("p", 4096)}
}
