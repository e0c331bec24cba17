package mail

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Domain is the right-hand side of an address: a domain name in its one canonical form
// (lower-case A-labels, no trailing dot) or an address literal such as [192.0.2.1]
// (RFC 5321 §4.1.3). The zero value is "no domain". Domains compare with ==.
type Domain struct{ name string }

// idnaProfile maps case and width and checks labels as registries do, but allows the
// underscore and other letters seen in host names that are not registered names.
var idnaProfile = idna.New(idna.MapForLookup(), idna.StrictDomainName(false), idna.BidiRule(), idna.Transitional(false), idna.VerifyDNSLength(false))

// ParseDomain parses a domain name (ASCII or U-labels) or an address literal.
func ParseDomain(s string) (Domain, error) {
	if s == "" {
		return Domain{}, errors.New("domain is empty")
	}
	if !utf8.ValidString(s) {
		return Domain{}, errors.New("domain is not valid UTF-8")
	}
	if s[0] == '[' {
		return parseLiteral(s)
	}
	ascii, err := toASCII(s)
	if err != nil {
		return Domain{}, err
	}
	if len(ascii) > 253 { // RFC 5321 §4.5.3.1.2 says 255 octets on the wire of DNS, 253 in text.
		return Domain{}, errors.New("domain is too long")
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if err := checkLabel(label); err != nil {
			return Domain{}, fmt.Errorf("domain %q: %w", s, err)
		}
	}
	return Domain{ascii}, nil
}

func toASCII(s string) (string, error) {
	plain := true
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x80 {
			plain = false
		} else if c <= ' ' || c == 0x7f {
			return "", errors.New("domain contains a space or control character")
		}
	}
	if plain && !strings.Contains(strings.ToLower(s), "xn--") {
		return strings.ToLower(strings.TrimSuffix(s, ".")), nil
	}
	ascii, err := idnaProfile.ToASCII(s)
	if err != nil {
		return "", fmt.Errorf("domain %q is not a valid international name", s)
	}
	return strings.ToLower(strings.TrimSuffix(ascii, ".")), nil
}

func checkLabel(l string) error {
	switch {
	case l == "":
		return errors.New("empty label")
	case len(l) > 63:
		return errors.New("label is longer than 63 octets")
	case l[0] == '-' || l[len(l)-1] == '-':
		return errors.New("label begins or ends with a hyphen")
	}
	for i := 0; i < len(l); i++ {
		c := l[i]
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return errors.New("label has a character that names do not have")
		}
	}
	return nil
}

func parseLiteral(s string) (Domain, error) {
	if len(s) > 64 || s[len(s)-1] != ']' {
		return Domain{}, errors.New("malformed address literal")
	}
	text := s[1 : len(s)-1]
	v6 := len(text) > 5 && strings.EqualFold(text[:5], "IPv6:")
	if v6 {
		text = text[5:]
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" || ip.Is6() != v6 {
		return Domain{}, errors.New("malformed address literal")
	}
	if v6 {
		return Domain{"[IPv6:" + ip.String() + "]"}, nil
	}
	return Domain{"[" + ip.String() + "]"}, nil
}

// MustDomain is ParseDomain for constants; it panics on an error.
func MustDomain(s string) Domain {
	d, err := ParseDomain(s)
	if err != nil {
		panic(err)
	}
	return d
}

// String returns the A-label form, or the literal with its brackets.
func (d Domain) String() string { return d.name }

// Unicode returns the U-label form, for people to read.
func (d Domain) Unicode() string {
	u, err := idnaProfile.ToUnicode(d.name)
	if err != nil {
		return d.name
	}
	return u
}

// IsZero reports whether there is no domain.
func (d Domain) IsZero() bool { return d.name == "" }

// Literal returns the address of an address literal.
func (d Domain) Literal() (netip.Addr, bool) {
	if d.name == "" || d.name[0] != '[' {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(strings.TrimPrefix(d.name[1:len(d.name)-1], "IPv6:"))
	return ip, err == nil
}

// Under reports whether d is parent or a name below it.
func (d Domain) Under(parent Domain) bool {
	return d == parent || strings.HasSuffix(d.name, "."+parent.name)
}

// MarshalText gives the String form.
func (d Domain) MarshalText() ([]byte, error) { return []byte(d.name), nil }

// UnmarshalText parses what MarshalText gave; an empty text is the zero Domain.
func (d *Domain) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Domain{}
		return nil
	}
	v, err := ParseDomain(string(b))
	if err == nil {
		*d = v
	}
	return err
}
