package config

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Networks shorter than this hold a good part of all addresses: who lets them relay
// runs an open relay.
const (
	shortestRelay4 = 8
	shortestRelay6 = 16
)

func (v *validator) networks() {
	for _, name := range slices.Sorted(maps.Keys(v.c.Networks)) {
		key := joinKey("networks", name)
		if !isName(name) {
			v.problem(key, "the name of a network has lower-case letters, digits, hyphens and underscores, and begins with a letter")
		}
		for i, s := range v.c.Networks[name] {
			if _, err := ParsePrefix(s); err != nil {
				v.problem(indexKey(key, i), "%q %v", s, err)
			}
		}
	}
	v.networkList("relay.networks", v.c.Relay.Networks, !v.c.Relay.AllowEveryone)
}

// networkList checks a use of networks. Whoever is in a trusted one gets rights.
func (v *validator) networkList(key string, list Strings, trusted bool) {
	for i, s := range list {
		at := indexKey(key, i)
		if _, ok := v.c.Networks[s]; !ok {
			if _, err := ParsePrefix(s); err != nil {
				if isName(s) {
					v.problem(at, "there is no network %q in [networks]", s)
				} else {
					v.problem(at, "%q %v", s, err)
				}
				continue
			}
		}
		for _, p := range v.c.Prefixes(Strings{s}) {
			shortest := shortestRelay4
			if p.Addr().Is6() {
				shortest = shortestRelay6
			}
			if !trusted || p.Bits() >= shortest {
				continue
			}
			if key == "relay.networks" {
				v.problem(at, "%s would make this an open relay; name your own networks, or set relay.allow_everyone = true if nobody else can reach this gateway", p)
			} else {
				v.problem(at, "%s would believe the PROXY header of everybody; name the proxies only", p)
			}
		}
	}
}

func (v *validator) limits() {
	l := v.c.Limits
	if l.MessageSize < 64<<10 {
		// RFC 5321 §4.5.3.1.7: at least 64K octets.
		v.problem("limits.message_size", "must be at least 64KiB")
	}
	if l.HeaderSize < 4<<10 || l.HeaderSize > 16<<20 {
		v.problem("limits.header_size", "must be from 4KiB to 16MiB")
	}
	// RFC 5321 §4.5.3.1.8: at least 100 recipients.
	v.atLeast("limits.recipients", l.Recipients, 100)
	v.atLeast("limits.received_hops", l.ReceivedHops, 10)
	v.atLeast("limits.errors", l.Errors, 1)
	v.atLeast("limits.connections", l.Connections, 1)
	v.atLeast("limits.connections_per_client", l.ConnectionsPerClient, 1)
	v.atLeast("limits.messages_per_minute", l.MessagesPerMinute, 0)
	v.atLeast("limits.recipients_per_hour", l.RecipientsPerHour, 0)
	for _, name := range slices.Sorted(maps.Keys(l.Networks)) {
		key := joinKey("limits.networks", name)
		n := l.Networks[name]
		if _, ok := v.c.Networks[name]; !ok {
			v.problem(key, "there is no network %q in [networks]", name)
		}
		if n.MessageSize != nil && (*n.MessageSize < 64<<10 || *n.MessageSize > l.MessageSize) {
			v.problem(key+".message_size", "must be from 64KiB to limits.message_size (%s)", l.MessageSize)
		}
		if n.ConnectionsPerClient != nil {
			v.atLeast(key+".connections_per_client", *n.ConnectionsPerClient, 1)
		}
	}
}

func (v *validator) access() {
	a := v.c.Access
	v.accessRules("access.clients", a.Clients, func(key string, match Strings) {
		v.networkList(key, match, false)
	})
	addresses := func(key string, match Strings) {
		for i, m := range match {
			if err := checkAddressPattern(m); err != nil {
				v.problem(indexKey(key, i), `%q is not "user@example.com", "example.com" or "*.example.com"`, m)
			}
		}
	}
	v.accessRules("access.senders", a.Senders, addresses)
	v.accessRules("access.recipients", a.Recipients, addresses)
}

func (v *validator) accessRules(key string, rules []AccessRule, match func(key string, match Strings)) {
	for i, r := range rules {
		at := indexKey(key, i)
		if len(r.Match) == 0 {
			v.problem(at+".match", "is missing")
		}
		match(at+".match", r.Match)
		v.oneOf(at+".action", r.Action, "allow", "reject")
		v.text(at+".text", r.Text, 200)
	}
}

func checkAddressPattern(s string) error {
	if strings.Contains(s, "@") {
		_, err := mail.ParsePath(s)
		return err
	}
	_, err := mail.ParseDomain(strings.TrimPrefix(s, "*."))
	return err
}

func (v *validator) plugins() {
	names := make(map[string]bool)
	for i, p := range v.c.Plugins {
		key := indexKey("plugin", i)
		switch {
		case p.Name == "":
			v.problem(key+".name", "is missing")
		case !isName(p.Name):
			v.problem(key+".name", "%q: a name has lower-case letters, digits, hyphens and underscores, and begins with a letter", p.Name)
		case p.Name == "postern": // the notes "postern/..." are ours
			v.problem(key+".name", "%q is the gateway itself; choose another name", p.Name)
		case names[p.Name]:
			v.problem(key+".name", "%q is there twice; give one another name and say use = %q", p.Name, p.Name)
		}
		names[p.Name] = true
		if p.Use != "" && !isName(p.Use) {
			v.problem(key+".use", "%q is not the name of a plugin", p.Use)
		}
		if p.Use != "" && len(p.Command) > 0 {
			v.problem(key+".command", "is not possible together with use")
		}
		if len(p.Command) > 0 {
			v.program(key+".command", p.Command[0])
		}
		if d := time.Duration(p.Timeout); d < 10*time.Millisecond || d > 10*time.Minute {
			v.problem(key+".timeout", "must be from 10ms to 10m")
		}
		v.confinement(key, p)
		v.onFailure(key+".on_failure", p.OnFailure)
		if v.c.exposed && p.Settings.secret != "" {
			v.problem(key+".settings", "has a secret (%s), and this file may be read by everybody; run: chmod 600 %s", p.Settings.secret, v.c.file)
		}
	}
}

func (v *validator) onFailure(key string, o OnFailure) {
	actions := []string{"tempfail", "reject", "accept", "park"}
	for _, f := range []struct{ name, value string }{
		{"stranger", o.Stranger}, {"authenticated", o.Authenticated}, {"relay", o.Relay},
		{"down", o.Down}, {"timeout", o.Timeout}, {"error", o.Error},
	} {
		if f.value != "" {
			v.oneOf(key+"."+f.name, f.value, actions...)
		}
	}
	v.oneOf(key+".default", o.Default, actions...)
}

// isName reports whether s can name a network or a plugin.
func isName(s string) bool {
	if s == "" || len(s) > 64 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
}
