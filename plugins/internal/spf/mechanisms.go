package spf

import (
	"net/netip"
	"strings"
)

// matches reports whether a mechanism matches (RFC 7208 §5).
func (e *evaluation) matches(t term, domain string) (bool, error) {
	switch t.mechanism {
	case "all":
		return true, nil
	case "ip4", "ip6":
		return t.network.Contains(e.q.IP), nil
	}
	if err := e.count(); err != nil {
		return false, err
	}
	target := domain
	if t.domain != "" {
		var err error
		if target, err = e.target(t.domain, domain); err != nil {
			return false, err
		}
	}
	if t.mechanism != "include" && !wellFormed(target) {
		return false, nil // RFC 7208 §4.8 leaves it to us
	}
	switch t.mechanism {
	case "include":
		return e.include(target)
	case "a":
		addrs, err := e.addresses(target, true)
		return e.among(addrs, t), err
	case "mx":
		return e.mx(target, t)
	case "ptr":
		return e.ptr(target)
	}
	// exists: always A, whatever the client's family (RFC 7208 §5.7)
	addrs, err := e.r.LookupNetIP(e.ctx, "ip4", target)
	_, err = e.answer(len(addrs), err, true)
	return err == nil && len(addrs) > 0, err
}

// answer turns "nothing found" into no error, and counts it.
func (e *evaluation) answer(n int, err error, count bool) (int, error) {
	if n > 0 {
		return n, nil // the library complains about single bad records of a good answer
	}
	if err != nil && !notFound(err) {
		return 0, err
	}
	if count {
		return 0, e.void()
	}
	return 0, nil
}

// include evaluates another domain's policy as a condition (RFC 7208 §5.2).
func (e *evaluation) include(target string) (bool, error) {
	exp, expDomain := e.exp, e.expDomain
	result, _, err := e.check(target)
	e.exp, e.expDomain = exp, expDomain
	switch result {
	case Pass:
		return true, nil
	case Fail, SoftFail, Neutral:
		return false, nil
	case None:
		return false, permanent("include of %.80q, which has no policy", target)
	}
	return false, err
}

// addresses are the A or AAAA records of a name, of the client's family.
func (e *evaluation) addresses(name string, count bool) ([]netip.Addr, error) {
	network := "ip6"
	if e.q.IP.Is4() {
		network = "ip4"
	}
	addrs, err := e.r.LookupNetIP(e.ctx, network, name)
	_, err = e.answer(len(addrs), err, count)
	return addrs, err
}

// among reports whether the client is one of the addresses, or in the networks that t makes
// of them.
func (e *evaluation) among(addrs []netip.Addr, t term) bool {
	bits := t.bits6
	if e.q.IP.Is4() {
		bits = t.bits4
	}
	for _, a := range addrs {
		if a = a.Unmap(); a.BitLen() != e.q.IP.BitLen() {
			continue
		}
		if p, err := a.WithZone("").Prefix(bits); err == nil && p.Contains(e.q.IP) {
			return true
		}
	}
	return false
}

func (e *evaluation) mx(target string, t term) (bool, error) {
	hosts, err := e.r.LookupMX(e.ctx, target)
	if _, err := e.answer(len(hosts), err, true); err != nil {
		return false, err
	}
	if len(hosts) > maxMX {
		return false, permanent("%.80q has more than %d mail exchangers", target, maxMX)
	}
	for _, h := range hosts {
		if !wellFormed(strings.TrimSuffix(h.Host, ".")) { // also the null MX of RFC 7505
			continue
		}
		addrs, err := e.addresses(h.Host, false)
		if err != nil {
			return false, err
		}
		if e.among(addrs, t) {
			return true, nil
		}
	}
	return false, nil
}

func (e *evaluation) ptr(target string) (bool, error) {
	names, err := e.clientNames(true)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		if under(n, target) {
			return true, nil
		}
	}
	return false, nil
}

// clientNames are the names of the client that lead back to its address (RFC 7208 §5.5).
// Errors of DNS are no names: the zone is the client's, not the sender's.
func (e *evaluation) clientNames(count bool) ([]string, error) {
	if e.named {
		return e.names, nil
	}
	e.named = true
	ptrs, err := e.r.LookupAddr(e.ctx, e.q.IP.String())
	if len(ptrs) == 0 && (err == nil || notFound(err)) && count {
		if err := e.void(); err != nil {
			return nil, err
		}
	}
	for _, p := range ptrs[:min(len(ptrs), maxNames)] {
		addrs, err := e.addresses(p, false)
		if err != nil {
			continue
		}
		if e.among(addrs, term{bits4: 32, bits6: 128}) {
			e.names = append(e.names, strings.TrimSuffix(p, "."))
		}
	}
	return e.names, nil
}
