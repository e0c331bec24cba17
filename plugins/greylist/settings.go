package greylist

import (
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/plugins/internal/peer"
)

// Settings of the plugin.
type Settings struct {
	// Delay is how long a new sender has to wait. Default: "5m".
	Delay time.Duration `toml:"delay"`
	// Window is how long after its first try a sender may come back; later ones are first
	// tries again. Default: "48h".
	Window time.Duration `toml:"window"`
	// Lifetime is how long one that has waited passes, from its last message. Default: "840h".
	Lifetime time.Duration `toml:"lifetime"`
	// Networks are clients that never wait. Default: none.
	Networks []string `toml:"networks"`
	// Proven is after how many senders that waited a client passes with any sender; 0: never.
	// Default: 5.
	Proven int `toml:"proven"`
	// ProvenBy is who is proven: "network" (the client's) or "domain" (the client's network for
	// one sender domain). Default: "network".
	ProvenBy string `toml:"proven_by"`
	// ProvenFor is how long it passes then, from its last message. Default: "840h".
	ProvenFor time.Duration `toml:"proven_for"`
	// ReverseName lets clients pass whose name in the DNS is in the domain of the
	// reverse-path and leads back to them. Default: false.
	ReverseName bool `toml:"reverse_name"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	const fiveWeeks = 35 * 24 * time.Hour // mail that comes once a month
	return Settings{Delay: 5 * time.Minute, Window: 48 * time.Hour, Lifetime: fiveWeeks, Proven: 5, ProvenBy: "network", ProvenFor: fiveWeeks}
}

// longest is the longest time that can be set.
const longest = 400 * 24 * time.Hour

// check returns the networks, and every fault there is.
func (s *Settings) check() (peer.Networks, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("settings: "+format, args...)) }
	if s.Delay < time.Second || s.Delay > 24*time.Hour {
		fault("delay is %s; it has to be from 1s to 24h", s.Delay)
	}
	if s.Window < 2*s.Delay || s.Window > longest {
		fault("window is %s; it has to be at least twice the delay, and at most %s: senders try again after minutes to hours", s.Window, longest)
	}
	if s.Lifetime < s.Window || s.Lifetime > longest {
		fault("lifetime is %s; it has to be from the window to %s", s.Lifetime, longest)
	}
	if s.Proven < 0 || s.Proven > 10_000 {
		fault("proven is %d; it has to be from 0 to 10000", s.Proven)
	}
	if s.ProvenBy != "network" && s.ProvenBy != "domain" {
		fault(`proven_by is %q; it has to be "network" or "domain"`, s.ProvenBy)
	}
	if s.ProvenFor < time.Hour || s.ProvenFor > longest {
		fault("proven_for is %s; it has to be from 1h to %s", s.ProvenFor, longest)
	}
	var networks peer.Networks
	for _, text := range s.Networks {
		n, err := peer.ParseNetwork(text)
		if err != nil {
			fault("networks: %q %w", text, err)
		}
		networks = append(networks, n)
	}
	return networks, errors.Join(faults...)
}
