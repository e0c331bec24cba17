package dkim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/plugins/internal/setting"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Domains that are signed for, with the domains below them. Required.
	Domains []string `toml:"domains"`
	// Selector of the keys. Default: "postern".
	Selector string `toml:"selector"`
	// Selectors, in the place of Selector: each makes a signature of its own, such as one with RSA
	// and one with Ed25519. Default: only Selector.
	Selectors []string `toml:"selectors"`
	// PerDomain are the selectors of single domains where they differ. Default: none.
	PerDomain map[string][]string `toml:"per_domain"`
	// KeyDir has the private keys, DOMAIN.SELECTOR.pem; relative to the gateway's data
	// directory. Default: "dkim".
	KeyDir string `toml:"key_dir"`
	// RotateAfter is the age at which a key gets a successor. Default: "0s", never by
	// itself.
	RotateAfter time.Duration `toml:"rotate_after"`
	// Overlap is how long the record of a key has to stay in the DNS after the key was last
	// used. Default: "168h".
	Overlap time.Duration `toml:"overlap"`
	// CheckInterval is how often the DNS is asked for our keys; "0s": never, and then the first key
	// signs at once and no new one is ever used. Default: "10m".
	CheckInterval time.Duration `toml:"check_interval"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{Selector: "postern", KeyDir: "dkim", Overlap: 7 * 24 * time.Hour, CheckInterval: 10 * time.Minute}
}

// checked are the settings in a form to work with.
type checked struct {
	wanted      []wish
	dir         string
	rotateAfter time.Duration
	overlap     time.Duration
	interval    time.Duration
}

// wish is a domain to sign for, with the selectors of its first keys.
type wish struct {
	domain    mail.Domain
	selectors []string
}

// maxSelectors is how many signatures a message may get.
const maxSelectors = 4

func check(c sdk.Config) (checked, error) {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return checked{}, err
	}
	if len(s.Domains) == 0 {
		return checked{}, errors.New(`settings: domains is empty; name the domains to sign for, as in domains = ["example.org"]`)
	}
	if s.Selectors == nil {
		s.Selectors = []string{s.Selector}
	}
	out := checked{dir: setting.File(c.DataDir, s.KeyDir), rotateAfter: s.RotateAfter, overlap: s.Overlap, interval: s.CheckInterval}
	var faults []error
	fault := func(key string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("settings: %s: %w", key, err))
		}
	}
	fault("selectors", checkSelectors(s.Selectors))
	fault("rotate_after", atLeast(s.RotateAfter, 24*time.Hour, true))
	fault("overlap", atLeast(s.Overlap, time.Hour, false))
	fault("check_interval", atLeast(s.CheckInterval, time.Second, true))
	if s.RotateAfter > 0 && s.CheckInterval == 0 {
		fault("rotate_after", errors.New("needs a check_interval: a new key is used once the DNS shows it"))
	}
	per := make(map[mail.Domain][]string)
	for _, name := range slices.Sorted(maps.Keys(s.PerDomain)) {
		selectors := s.PerDomain[name]
		d, err := mail.ParseDomain(name)
		fault("per_domain", err)
		fault("per_domain", checkSelectors(selectors))
		per[d] = selectors
	}
	for _, name := range s.Domains {
		d, err := mail.ParseDomain(name)
		fault("domains", err)
		if err != nil || slices.ContainsFunc(out.wanted, func(w wish) bool { return w.domain == d }) {
			continue
		}
		selectors, ok := per[d]
		if !ok {
			selectors = s.Selectors
		}
		delete(per, d)
		out.wanted = append(out.wanted, wish{d, selectors})
	}
	for d := range per {
		fault("per_domain", fmt.Errorf("%q is not one of domains", d))
	}
	return out, errors.Join(faults...)
}

func checkSelectors(all []string) error {
	if len(all) == 0 || len(all) > maxSelectors {
		return fmt.Errorf("there have to be 1 to %d", maxSelectors)
	}
	for i, s := range all {
		if err := dkimkey.CheckSelector(s); err != nil {
			return err
		}
		if err := dkimkey.CheckSelector(s + "-20060102a"); err != nil {
			return fmt.Errorf("%q is too long: the selectors of later keys have the day at the end", s)
		}
		for _, o := range all[:i] {
			if isGeneration(s, o) || isGeneration(o, s) {
				return fmt.Errorf("%q and %q are not different enough", o, s)
			}
		}
	}
	return nil
}

func atLeast(d, least time.Duration, orNone bool) error {
	if d >= least || orNone && d == 0 {
		return nil
	}
	return fmt.Errorf("%s is too short: at least %s", d, least)
}
