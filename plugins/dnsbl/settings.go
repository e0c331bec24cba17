package dnsbl

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/peer"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Reject, Tempfail and Note are the scores from which a client is refused, is refused
	// for now, and from which the score is noted; or "off". Default: 1, "off", and whenever a
	// list had something to say.
	Reject   threshold `toml:"reject"`
	Tempfail threshold `toml:"tempfail"`
	Note     threshold `toml:"note"`
	// RefuseAt is when clients are refused for their address: "connect" or "mail". Default:
	// "connect".
	RefuseAt string `toml:"refuse_at"`
	// Timeout is how long the lists are waited for, in each stage. Default: "3s".
	Timeout time.Duration `toml:"timeout"`
	// Networks are clients that no list is asked about. Default: none.
	Networks []string `toml:"networks"`
	// Lists are the lists. Required.
	Lists []ListSettings `toml:"list"`
}

// ListSettings are those of one list.
type ListSettings struct {
	// Zone is where the list is in the DNS. Required.
	Zone string `toml:"zone"`
	// Name is what replies, notes and the log call it. Default: the zone.
	Name string `toml:"name"`
	// Of is what the list has: "client" (addresses), "name" (of clients), "helo" and "sender"
	// (domains). Default: ["client"].
	Of []string `toml:"of"`
	// Weight is what being listed counts. Below 0: the list vouches for whom it has. Default:
	// 1; where there are answers, 0.
	Weight *float64 `toml:"weight"`
	// Answers have weights of their own: an address, a range "127.0.0.4-127.0.0.7", a network
	// "127.0.1.0/24", or a bit of the last octet, "&8". Default: none.
	Answers map[string]float64 `toml:"answers"`
	// Test is the entry that the list must have, "off": no test. Default: "127.0.0.2" for
	// addresses, "test" for names (RFC 5782).
	Test string `toml:"test"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{Reject: threshold{true, 1}, Note: threshold{true, math.Inf(-1)}, RefuseAt: "connect", Timeout: 3 * time.Second}
}

// threshold is a score, or "off".
type threshold struct {
	on    bool
	score float64
}

func (t threshold) reached(score float64) bool { return t.on && score >= t.score }

// UnmarshalTOML implements [toml.Unmarshaler].
func (t *threshold) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		*t = threshold{true, float64(v)}
	case float64:
		*t = threshold{true, v}
	case string:
		*t = threshold{}
		if v != "off" {
			return fmt.Errorf(`%q is neither a score nor "off"`, v)
		}
	default:
		return errors.New(`it is neither a score nor "off"`)
	}
	if !sane(t.score) {
		return errors.New("it is not a score")
	}
	return nil
}

const (
	maxLists = 50
	maxScore = 1e6
)

func sane(score float64) bool { return score >= -maxScore && score <= maxScore } // and no NaN

// check returns the lists and the networks, and every fault there is.
func (s *Settings) check() (lists []*list, networks peer.Networks, err error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("settings: "+format, args...)) }
	if s.RefuseAt != "connect" && s.RefuseAt != "mail" {
		fault(`refuse_at is %q; it has to be "connect" or "mail"`, s.RefuseAt)
	}
	if s.Reject.on && s.Tempfail.on && s.Tempfail.score > s.Reject.score {
		fault("tempfail is above reject and would never happen")
	}
	for _, t := range []struct {
		key string
		threshold
	}{{"reject", s.Reject}, {"tempfail", s.Tempfail}} {
		if t.on && t.score <= 0 {
			fault("%s is %g; that is everybody, it has to be above 0", t.key, t.score)
		}
	}
	if s.Timeout < 100*time.Millisecond || s.Timeout > time.Minute {
		fault("timeout is %s; it has to be from 100ms to 1m", s.Timeout)
	}
	for _, text := range s.Networks {
		n, err := peer.ParseNetwork(text)
		if err != nil {
			fault("networks: %q %w", text, err)
		}
		networks = append(networks, n)
	}
	if len(s.Lists) == 0 || len(s.Lists) > maxLists {
		fault("there are %d lists; name from 1 to %d, each in a table [[plugin.settings.list]] with its zone", len(s.Lists), maxLists)
	}
	for i := range s.Lists {
		l, err := s.Lists[i].list()
		if err != nil {
			fault("list %d (%q): %v", i+1, s.Lists[i].Name+s.Lists[i].Zone, err)
		} else if slices.ContainsFunc(lists, func(o *list) bool { return o.name == l.name }) {
			fault("list %d: there is another one of the name %q; give it a name of its own", i+1, l.name)
		}
		lists = append(lists, l)
	}
	return lists, networks, errors.Join(faults...)
}

func (s *ListSettings) list() (*list, error) {
	zone, err := mail.ParseDomain(strings.TrimSuffix(s.Zone, "."))
	if _, literal := zone.Literal(); err != nil || literal {
		return nil, errors.New("zone is not a domain")
	}
	l := &list{zone: zone.String(), name: s.Name, of: s.Of, weight: 1, test: s.Test}
	if l.name == "" {
		l.name = l.zone
	}
	if len(l.name) > 100 || strings.ContainsFunc(l.name, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, errors.New("name is not a short line of ASCII text")
	}
	if l.of == nil {
		l.of = []string{ofClient}
	}
	for _, of := range l.of {
		if !slices.Contains([]string{ofClient, ofName, ofHelo, ofSender}, of) {
			return nil, fmt.Errorf(`of: %q is not "client", "name", "helo" or "sender"`, of)
		}
	}
	if len(s.Answers) > 0 {
		l.weight = 0
	}
	if s.Weight != nil {
		l.weight = *s.Weight
	}
	lowest := l.weight
	for text, weight := range s.Answers {
		p, err := parseAnswer(text)
		if err != nil {
			return nil, err
		}
		p.weight = weight
		l.answers = append(l.answers, p)
		lowest = min(lowest, weight)
		if !sane(weight) {
			return nil, errors.New("a weight is out of range")
		}
	}
	switch {
	case !sane(l.weight):
		return nil, errors.New("weight is out of range")
	case lowest < 0 && (slices.Contains(l.of, ofHelo) || slices.Contains(l.of, ofSender)):
		return nil, errors.New(`it vouches for what anybody can claim; a weight below 0 is for lists of "client" and "name"`)
	case len(l.of) == 0:
		return nil, errors.New("of is empty")
	}
	return l, nil
}

// pattern is some of a list's answers, with their weight.
type pattern struct {
	from, to netip.Addr
	bit      uint8 // of the last octet, instead
	weight   float64
}

func (p pattern) matches(a netip.Addr) bool {
	if p.bit != 0 {
		return a.As4()[3]&p.bit != 0
	}
	return p.from.Compare(a) <= 0 && a.Compare(p.to) <= 0
}

func parseAnswer(s string) (pattern, error) {
	fault := fmt.Errorf("answers: %q is not of the form 127.0.0.2, 127.0.0.4-127.0.0.7, 127.0.1.0/24 or &8", s)
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	if number, ok := strings.CutPrefix(s, "&"); ok {
		bit, err := strconv.ParseUint(number, 10, 8)
		if err != nil || bit == 0 || bit&(bit-1) != 0 {
			return pattern{}, fault
		}
		return pattern{bit: uint8(bit)}, nil
	}
	var p pattern
	var err error
	if strings.Contains(s, "/") {
		n, nerr := netip.ParsePrefix(s)
		if nerr != nil || !n.Addr().Is4() {
			return p, fault
		}
		p.from, p.to = n.Masked().Addr(), last(n)
	} else {
		from, to, isRange := strings.Cut(s, "-")
		if p.from, err = netip.ParseAddr(from); err != nil {
			return p, fault
		}
		p.to = p.from
		if isRange {
			if p.to, err = netip.ParseAddr(to); err != nil {
				return p, fault
			}
		}
	}
	if !loopback.Contains(p.from) || !loopback.Contains(p.to) || p.to.Less(p.from) {
		return p, fault
	}
	return p, nil
}

// last is the last address of an IPv4 network.
func last(n netip.Prefix) netip.Addr {
	b := n.Masked().Addr().As4()
	for i := n.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
