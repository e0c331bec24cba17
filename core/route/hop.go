package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Scheme says how to speak to a hop.
type Scheme uint8

// The schemes.
const (
	SchemeSMTP    Scheme = iota + 1 // SMTP to Address
	SchemeLMTP                      // LMTP to Address (RFC 2033)
	SchemeMX                        // SMTP to the MX of the domain in Address
	SchemeMailbox                   // the mailbox plugin named in Address
)

// Hop is one next hop.
type Hop struct {
	Scheme Scheme
	// Address is "host:port" (IPv6 in brackets), "unix:/path" (LMTP only), the domain for
	// SchemeMX, which may be an address literal, or the name of a mailbox plugin.
	Address string
	// ImplicitTLS: TLS begins with the connection (smtps://), before the greeting.
	ImplicitTLS bool
	// Credentials names the log-in to use; empty: none. The secret itself is elsewhere.
	Credentials string
}

// String is the hop as part of a destination key: "smtp:10.0.0.5:25", "mx:example.org",
// "mailbox:maildir".
func (h Hop) String() string {
	switch {
	case h.Scheme == SchemeLMTP:
		return "lmtp:" + h.Address
	case h.Scheme == SchemeMX:
		return "mx:" + h.Address
	case h.Scheme == SchemeMailbox:
		return "mailbox:" + h.Address
	case h.ImplicitTLS:
		return "smtps:" + h.Address
	}
	return "smtp:" + h.Address
}

// ParseHop parses a next hop: "smtp://host:port" (port 25), "smtps://host:port" (465),
// "lmtp://host:port" (24), "lmtp://unix:/path", or a bare word, the name of a mailbox
// plugin.
func ParseHop(s string) (Hop, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		if !isPluginName(s) {
			return Hop{}, errors.New("is neither a mailbox plugin's name nor a next hop such as smtp://host:25, smtps://host:465 or lmtp://unix:/path")
		}
		return Hop{Scheme: SchemeMailbox, Address: s}, nil
	}
	switch scheme {
	case "smtp":
		return netHop(Hop{Scheme: SchemeSMTP}, rest, 25)
	case "smtps":
		return netHop(Hop{Scheme: SchemeSMTP, ImplicitTLS: true}, rest, 465)
	case "lmtp":
		if p, ok := strings.CutPrefix(rest, "unix:"); ok {
			if !path.IsAbs(p) || path.Clean(p) != p || strings.ContainsAny(p, "\x00\r\n,") {
				return Hop{}, fmt.Errorf("socket %q is not a clean absolute path", p)
			}
			if len(p) > 100 { // sockaddr_un has 108 bytes on Linux
				return Hop{}, fmt.Errorf("socket path is longer than 100 bytes")
			}
			return Hop{Scheme: SchemeLMTP, Address: "unix:" + p}, nil
		}
		return netHop(Hop{Scheme: SchemeLMTP}, rest, 24)
	}
	return Hop{}, fmt.Errorf("unknown scheme %q: use smtp, smtps or lmtp", scheme)
}

// ParseSmarthost parses a smarthost: as ParseHop, but without a scheme it is a host, and
// only SMTP will do. Port 465 without a scheme means implicit TLS (RFC 8314 §3.3).
func ParseSmarthost(s string) (Hop, error) {
	var h Hop
	var err error
	if strings.Contains(s, "://") {
		h, err = ParseHop(s)
	} else {
		h, err = netHop(Hop{Scheme: SchemeSMTP}, s, 25)
		h.ImplicitTLS = strings.HasSuffix(h.Address, ":465")
	}
	if err == nil && h.Scheme != SchemeSMTP {
		err = errors.New("is not SMTP")
	}
	return h, err
}

// netHop sets the address of h from "host", "host:port", "1.2.3.4", "[v6]:port" or "[v6]".
func netHop(h Hop, s string, port uint16) (Hop, error) {
	host, portText := s, ""
	switch {
	case strings.HasPrefix(s, "["):
		i := strings.IndexByte(s, ']')
		if i < 0 || i+1 < len(s) && s[i+1] != ':' {
			return Hop{}, fmt.Errorf("malformed address %q", s)
		}
		host, portText = s[1:i], s[i+1:]
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
			return Hop{}, fmt.Errorf("%q is not an IPv6 address", host)
		}
	case strings.Count(s, ":") > 1:
		return Hop{}, fmt.Errorf("an IPv6 address needs brackets: [%s]", s)
	case strings.Contains(s, ":"):
		i := strings.IndexByte(s, ':')
		host, portText = s[:i], s[i:]
	}
	if portText != "" {
		n, err := strconv.ParseUint(portText[1:], 10, 16)
		if err != nil || n == 0 {
			return Hop{}, fmt.Errorf("%q is not a port", portText[1:])
		}
		port = uint16(n)
	}
	name, err := hostName(host)
	if err != nil {
		return Hop{}, err
	}
	h.Address = net.JoinHostPort(name, strconv.Itoa(int(port)))
	return h, nil
}

// hostName is the canonical form of a host: an address or a domain name.
func hostName(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return "", fmt.Errorf("%s is not the address of a host", s)
		}
		if a.Zone() != "" && !isPluginName(a.Zone()) {
			return "", fmt.Errorf("%q has no interface name after the %%", s)
		}
		return a.String(), nil
	}
	d, err := mail.ParseDomain(s)
	if err == nil {
		_, err = mail.ParseDomain(d.String()) // the canonical form has to be one
	}
	if err != nil {
		return "", fmt.Errorf("host %q: %w", s, err)
	}
	if _, literal := d.Literal(); literal {
		return "", fmt.Errorf("host %q: write the address without brackets", s)
	}
	if d.String() == "unix" {
		return "", errors.New("a host cannot be called unix: write lmtp://unix:/path for a socket")
	}
	return d.String(), nil
}

// isPluginName reports whether s is a plain word of at most 64 lower-case letters, digits,
// hyphens and underscores.
func isPluginName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
