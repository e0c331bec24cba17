package spf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"gopkg.in/yaml.v3"
)

// suiteZone is the DNS of a scenario of the RFC 7208 suite. A name that times out does so
// for the types that it has no records of.
type suiteZone map[string]map[string][]string

func (z suiteZone) lookup(name, rtype string) ([]string, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for range 10 {
		rr, ok := z[name]
		if !ok {
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		}
		if v := rr[rtype]; len(v) > 0 {
			return v, nil
		}
		if rr["TIMEOUT"] != nil {
			return nil, &net.DNSError{Err: "timeout", Name: name, IsTimeout: true}
		}
		if rr["CNAME"] == nil {
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		}
		name = strings.ToLower(rr["CNAME"][0])
	}
	return nil, &net.DNSError{Err: "CNAME loop", Name: name}
}

func (z suiteZone) LookupTXT(_ context.Context, name string) ([]string, error) {
	return z.lookup(name, "TXT")
}

func (z suiteZone) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	hosts, err := z.lookup(name, "MX")
	var out []*net.MX
	for _, h := range hosts {
		out = append(out, &net.MX{Host: h})
	}
	return out, err
}

func (z suiteZone) LookupNetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	var out []netip.Addr
	var errs []error
	for _, rtype := range map[string][]string{"ip4": {"A"}, "ip6": {"AAAA"}, "ip": {"A", "AAAA"}}[network] {
		addrs, err := z.lookup(name, rtype)
		if err != nil {
			errs = append(errs, err)
		}
		for _, a := range addrs {
			out = append(out, netip.MustParseAddr(a))
		}
	}
	if len(out) > 0 || len(errs) == 0 {
		return out, nil
	}
	return nil, errs[0]
}

func (z suiteZone) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	addrs, err := z.LookupNetIP(ctx, "ip", name)
	var out []net.IPAddr
	for _, a := range addrs {
		out = append(out, net.IPAddr{IP: a.AsSlice()})
	}
	return out, err
}

func (z suiteZone) LookupAddr(_ context.Context, addr string) ([]string, error) {
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		return nil, err
	}
	return z.lookup(name, "PTR")
}

// list is a string or several, as the suite has them.
type list []string

func (l *list) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		return n.Decode((*[]string)(l))
	}
	*l = list{n.Value}
	return nil
}

type scenario struct {
	Description string
	Tests       map[string]struct {
		Helo, Host, Mailfrom, Explanation string
		Result                            list
	}
	Zonedata map[string][]yaml.Node
}

func (s scenario) zone() (suiteZone, error) {
	z := make(suiteZone)
	for name, records := range s.Zonedata {
		rr := make(map[string][]string)
		for _, n := range records {
			if n.Kind == yaml.ScalarNode {
				rr[n.Value] = []string{""}
				continue
			}
			var m map[string]list
			if err := n.Decode(&m); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			for rtype, v := range m {
				switch rtype {
				case "TXT", "SPF":
					rr[rtype] = append(rr[rtype], strings.Join(v, "")) // strings of one record
				case "MX":
					rr[rtype] = append(rr[rtype], v[1])
				default:
					rr[rtype] = append(rr[rtype], v...)
				}
			}
		}
		if rr["TXT"] == nil {
			rr["TXT"] = rr["SPF"]
		} else if rr["TXT"][0] == "NONE" {
			delete(rr, "TXT")
		}
		z[strings.ToLower(name)] = rr
	}
	return z, nil
}

// TestRFC7208Suite runs every case of the public suite.
func TestRFC7208Suite(t *testing.T) {
	f, err := os.Open("testdata/rfc7208-tests.yml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for d := yaml.NewDecoder(f); ; {
		var s scenario
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		z, err := s.zone()
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range s.Tests {
			n++
			ip := netip.MustParseAddr(c.Host)
			q := Query{IP: ip, Helo: c.Helo, Receiver: "receiver.test", Explain: true}
			if i := strings.LastIndexByte(c.Mailfrom, '@'); i >= 0 {
				q.Local, q.Domain = c.Mailfrom[:i], c.Mailfrom[i+1:]
			}
			got := Check(t.Context(), z, q)
			if !slices.Contains(c.Result, string(got.Result)) {
				t.Errorf("%s: %s: %s (%v), want %v", s.Description, name, got.Result, got.Err, c.Result)
				continue
			}
			want := c.Explanation
			if want == "DEFAULT" {
				want = ""
			}
			if c.Explanation != "" && got.Explanation != want {
				t.Errorf("%s: %s: explanation %q, want %q", s.Description, name, got.Explanation, want)
			}
		}
	}
	if n != 203 {
		t.Errorf("%d cases", n)
	}
}
