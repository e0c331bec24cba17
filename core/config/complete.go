package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk/mail"
)

// complete fills in what depends on other keys and makes paths absolute.
func (c *Config) complete(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if c.Postmaster.IsZero() && !c.Hostname.IsZero() {
		c.Postmaster = mail.Path{Local: "postmaster", Domain: c.Hostname}
	}
	abs(&c.DataDir)
	abs(&c.TLS.Certificate)
	abs(&c.TLS.Key)
	abs(&c.Smarthost.PasswordFile)
	for i := range c.Destinations {
		abs(&c.Destinations[i].CAFile)
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if path, ok := strings.CutPrefix(l.Address, "unix:"); ok && path != "" {
			abs(&path)
			l.Address = "unix:" + path
		}
	}
	for i := range c.Plugins {
		// A program without a slash would be looked for in the search path; the name of a
		// file next to the configuration is what is meant.
		if cmd := c.Plugins[i].Command; len(cmd) > 0 {
			abs(&cmd[0])
		}
		if f := c.Plugins[i].Files; f != nil {
			for k := range f.Read {
				abs(&f.Read[k])
			}
			for k := range f.Write {
				abs(&f.Write[k])
			}
		}
	}
	c.completePlanners()
}

// completePlanners lets the plugin sieve, if it is listed, plan for mailboxes.
func (c *Config) completePlanners() {
	for i := range c.Domains {
		c.completePlanner(&c.Domains[i])
	}
}

func (c *Config) completePlanner(d *Domain) {
	sieve := slices.IndexFunc(c.Plugins, func(p Plugin) bool {
		return len(p.Command) == 0 && (p.Use == "sieve" || p.Use == "" && p.Name == "sieve")
	})
	elsewhere := slices.ContainsFunc(d.Deliver, func(t string) bool {
		h, err := route.ParseHop(t)
		return err != nil || h.Scheme != route.SchemeMailbox
	})
	switch {
	case d.Planner == "none":
		d.Planner = ""
	case d.Planner == "" && sieve >= 0 && len(d.Deliver) > 0 && !elsewhere:
		d.Planner = c.Plugins[sieve].Name
	}
}

// File is the path that the configuration was loaded from.
func (c *Config) File() string { return c.file }

// Network returns the network and address to listen on, as net.Listen takes them.
func (l Listener) Network() (network, address string) {
	if path, ok := strings.CutPrefix(l.Address, "unix:"); ok {
		return "unix", path
	}
	return "tcp", l.Address
}

// Password returns the smarthost's password; "" if none is configured. It is read when
// it is asked for, so that it can be changed without a restart.
func (s Smarthost) Password() (string, error) {
	if s.PasswordEnv != "" {
		return os.Getenv(s.PasswordEnv), nil
	}
	if s.PasswordFile == "" {
		return "", nil
	}
	if err := checkSecret(s.PasswordFile); err != nil {
		return "", err
	}
	data, _, err := readBounded(s.PasswordFile, 4096)
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(data), "\n")
	if first = strings.TrimSuffix(first, "\r"); first == "" {
		return "", errors.New("has no password in its first line")
	}
	return first, nil
}

// Prefixes resolves a list of networks: CIDRs, single addresses and names from [networks].
// Of a Config from Load every list resolves; entries that do not are left out.
func (c *Config) Prefixes(list Strings) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		if members, ok := c.Networks[s]; ok {
			for _, m := range members {
				if p, err := ParsePrefix(m); err == nil {
					out = append(out, p)
				}
			}
		} else if p, err := ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// ParsePrefix parses a CIDR or a single address. An IPv4 network in its IPv6 form
// (::ffff:192.0.2.0/120) is the IPv4 network.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errors.New("is not an address")
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New(`is not a network; write it like "192.0.2.0/24" or "2001:db8::/32"`)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errors.New(`is not a network; write it like "192.0.2.0/24" or "2001:db8::/32"`)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Masked() != p {
		return netip.Prefix{}, errors.New("has bits beyond its length; did you mean " + p.Masked().String() + "?")
	}
	return p, nil
}
