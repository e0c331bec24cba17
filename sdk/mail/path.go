package mail

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Path is an envelope address, a reverse-path or forward-path (RFC 5321 §4.1.2).
// Local is decoded: without the quotes it may need on the wire. The zero Path is the
// null reverse-path. Paths compare with == (local parts are case-sensitive there;
// use [Path.Fold] where a mailbox is meant).
type Path struct {
	Local  string
	Domain Domain
}

// Limits of RFC 5321 §4.5.3.1, in octets.
const (
	MaxLocal = 64
	MaxPath  = 254 // 256 with the angle brackets
)

// ErrUTF8 says that an address needs SMTPUTF8 (RFC 6531 §3.5).
var ErrUTF8 = errors.New("address has non-ASCII characters and needs SMTPUTF8")

// ParsePath parses `local@domain`, without angle brackets, where local may be a quoted
// string. An empty string is the null reverse-path. A source route is not accepted here.
// Non-ASCII local parts are valid; whether the session allows them is the caller's matter
// (see [Path.IsASCII]).
func ParsePath(s string) (Path, error) {
	if s == "" {
		return Path{}, nil
	}
	local, rest, err := cutLocal(s)
	if err != nil {
		return Path{}, err
	}
	if rest == "" || rest[0] != '@' {
		return Path{}, errors.New("address has no domain")
	}
	return MakePath(local, rest[1:])
}

// MakePath builds a Path from a decoded local part and the text of a domain.
func MakePath(local, domain string) (Path, error) {
	d, err := ParseDomain(domain)
	if err != nil {
		return Path{}, err
	}
	if err := checkLocal(local); err != nil {
		return Path{}, err
	}
	p := Path{local, d}
	if len(p.String()) > MaxPath {
		return Path{}, errors.New("address is too long")
	}
	return p, nil
}

// MustPath is ParsePath for constants; it panics on an error.
func MustPath(s string) Path {
	p, err := ParsePath(s)
	if err != nil {
		panic(err)
	}
	return p
}

func checkLocal(local string) error {
	switch {
	case local == "":
		return errors.New("local part is empty")
	case len(local) > MaxLocal:
		return errors.New("local part is too long")
	case !utf8.ValidString(local):
		return errors.New("local part is not valid UTF-8")
	}
	for _, r := range local {
		if !printable(r) {
			return errors.New("local part has a control character")
		}
	}
	return nil
}

// cutLocal decodes the local part at the start of s and returns what follows it.
func cutLocal(s string) (local, rest string, err error) {
	if s[0] != '"' {
		i := strings.IndexByte(s, '@')
		if i < 0 {
			return "", "", errors.New("address has no domain")
		}
		if !isDotString(s[:i]) {
			return "", "", errors.New("malformed local part")
		}
		return s[:i], s[i:], nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], nil
		case '\\':
			if i++; i == len(s) {
				return "", "", errors.New("malformed quoted local part")
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("malformed quoted local part")
}

// isDotString reports whether s is a Dot-string (RFC 5321 §4.1.2, RFC 6531 §3.3).
func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c == 0x7f || strings.IndexByte(`"(),:;<>@[\]`, c) >= 0 {
			return false
		}
	}
	return true
}

// IsZero reports whether p is the null reverse-path.
func (p Path) IsZero() bool { return p == Path{} }

// IsASCII reports whether p can travel without SMTPUTF8.
func (p Path) IsASCII() bool {
	for i := 0; i < len(p.Local); i++ {
		if p.Local[i] >= 0x80 {
			return false
		}
	}
	return true
}

// String returns the address as it stands between angle brackets on the wire, the local
// part quoted where it must be; "" for the null reverse-path.
func (p Path) String() string {
	if p.IsZero() {
		return ""
	}
	if isDotString(p.Local) {
		return p.Local + "@" + p.Domain.name
	}
	var b strings.Builder
	b.Grow(len(p.Local) + len(p.Domain.name) + 8)
	b.WriteByte('"')
	for i := 0; i < len(p.Local); i++ {
		if c := p.Local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(p.Local[i])
	}
	b.WriteString(`"@`)
	b.WriteString(p.Domain.name)
	return b.String()
}

// Fold returns p with its local part in lower case: the form in which mailboxes, policies
// and limits compare addresses.
func (p Path) Fold() Path { return Path{strings.ToLower(p.Local), p.Domain} }

// MarshalText gives the String form.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText parses what MarshalText gave.
func (p *Path) UnmarshalText(b []byte) error {
	v, err := ParsePath(string(b))
	if err == nil {
		*p = v
	}
	return err
}
