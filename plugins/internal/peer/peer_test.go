package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.0/24", "192.0.2.7/24": "192.0.2.0/24", "192.0.2.7": "192.0.2.7/32", "2001:db8::/32": "2001:db8::/32", "2001:db8::1": "2001:db8::1/128",
		"::ffff:192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.0/120": "192.0.2.0/24", "::ffff:0.0.0.0/96": "0.0.0.0/0", "::ffff:0.0.0.0/95": "",
		"": "", "office": "", "192.0.2.0/33": "", "192.0.2/24": "", "fe80::1%eth0": "", "fe80::%eth0/64": "", "/24": "",
	} {
		p, err := ParseNetwork(text)
		if (err == nil) != (want != "") || err == nil && p.String() != want {
			t.Errorf("%q: %s, %v; want %q", text, p, err, want)
		}
	}
	n := Networks{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	for client, want := range map[string]bool{"192.0.2.255": true, "::ffff:192.0.2.1": true, "192.0.3.0": false, "2001:db8::1": true, "2001:db9::": false} {
		if got := n.Contains(Addr(&mail.Client{Addr: netip.MustParseAddr(client)})); got != want {
			t.Errorf("%s: %v", client, got)
		}
	}
	if n.Contains(Addr(&mail.Client{})) {
		t.Error("no client is in a network")
	}
}

func TestNetwork(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.0", "192.0.2.255", true},
		{"192.0.2.255", "192.0.3.0", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"fe80::1%eth0", "fe80::2", true},
	} {
		if same := Network(netip.MustParseAddr(tt.a)) == Network(netip.MustParseAddr(tt.b)); same != tt.same {
			t.Errorf("%s and %s: %v", tt.a, tt.b, same)
		}
	}
}

// zone is a DNS; what begins with "!" fails.
type zone struct {
	names map[string]string // with blanks
	asked int
}

func (z *zone) look(key string) ([]string, error) {
	z.asked++
	switch v, ok := z.names[key]; {
	case !ok:
		return nil, &net.DNSError{IsNotFound: true}
	case strings.HasPrefix(v, "!"):
		return nil, errors.New(v)
	default:
		return strings.Fields(v), nil
	}
}

func (z *zone) LookupAddr(_ context.Context, addr string) ([]string, error) { return z.look(addr) }

func (z *zone) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	all, err := z.look(network + " " + host)
	var out []netip.Addr
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, err
}

func TestName(t *testing.T) {
	z := &zone{names: map[string]string{
		"192.0.2.1": "lies.test. mx.a.test.", "ip4 lies.test": "192.0.2.9", "ip4 mx.a.test": "192.0.2.7 192.0.2.1",
		"2001:db8::1": "six.test.", "ip6 six.test": "2001:db8::1",
		"192.0.2.2": "gone.test.",
		"192.0.2.3": "broken.test. gone.test.", "ip4 broken.test": "!SERVFAIL",
		"192.0.2.4": "!SERVFAIL",
		"192.0.2.5": "a. b. c. d. e. f.test.", "ip4 f.test": "192.0.2.5",
	}}
	for _, tt := range []struct {
		client, host, below string
		want                string
	}{
		{"192.0.2.1", "", "", "mx.a.test"},
		{"::ffff:192.0.2.1", "", "", "mx.a.test"},
		{"192.0.2.1", "", "a.test", "mx.a.test"},
		{"192.0.2.1", "", "b.test", "its name does not lead back to it"},
		{"2001:db8::1", "", "", "six.test"},
		{"192.0.2.2", "", "", "its name does not lead back to it"},
		{"192.0.2.3", "", "", "!SERVFAIL"},
		{"192.0.2.4", "", "", "!SERVFAIL"},
		{"192.0.2.5", "", "", "its name does not lead back to it"}, // one too many
		{"192.0.2.6", "", "", "it has no name"},
		{"192.0.2.6", "known.test", "", "known.test"}, // the gateway has looked
		{"192.0.2.6", "known.test", "a.test", "it has no name"},
	} {
		var suits func(string) bool
		if tt.below != "" {
			suits = func(name string) bool { return strings.HasSuffix(name, "."+tt.below) }
		}
		z.asked = 0
		name, err := Name(t.Context(), z, &mail.Client{Addr: netip.MustParseAddr(tt.client), Host: tt.host}, suits)
		got := name
		if err != nil {
			got = fmt.Sprint(err)
		}
		if got != tt.want || name != "" && err != nil {
			t.Errorf("%s %s %s: %q, %v; want %q", tt.client, tt.host, tt.below, name, err, tt.want)
		}
		if z.asked > 1+MaxNames {
			t.Errorf("%s: asked %d times", tt.client, z.asked)
		}
	}
}
