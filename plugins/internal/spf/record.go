package spf

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// record is a parsed policy (RFC 7208 §4.6).
type record struct {
	terms         []term
	redirect, exp string // macro-strings; "" if there is none
}

// term is a directive: a mechanism and the result if it matches.
type term struct {
	text         string // as it stands in the record
	result       Result
	mechanism    string
	domain       string // domain-spec; "" if there is none
	network      netip.Prefix
	bits4, bits6 int
}

// Patterns of the grammar of RFC 7208 §12.
var (
	modifierRE = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9._-]*)=(.*)$`)
	cidrRE     = regexp.MustCompile(`^(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?$`)
	topLabelRE = regexp.MustCompile(`^(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])$`)
)

// parse parses a whole record; errors are permanent.
func parse(text string) (record, error) {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] > '~' {
			return record{}, permanent("the policy is not plain text")
		}
	}
	var rec record
	exps, redirects := 0, 0
	for word := range strings.FieldsSeq(text[len("v=spf1"):]) {
		m := modifierRE.FindStringSubmatch(word)
		if m == nil {
			t, err := parseDirective(word)
			if err != nil {
				return record{}, err
			}
			rec.terms = append(rec.terms, t)
			continue
		}
		ok := false
		switch strings.ToLower(m[1]) {
		case "redirect":
			redirects++
			rec.redirect, ok = m[2], isDomainSpec(m[2])
		case "exp":
			exps++
			rec.exp, ok = m[2], isDomainSpec(m[2])
		default:
			ok = isMacroString(m[2], true)
		}
		if !ok || redirects > 1 || exps > 1 {
			return record{}, permanent("syntax error at %.80q", word)
		}
	}
	for _, t := range rec.terms {
		if t.mechanism == "all" { // RFC 7208 §5.1
			rec.redirect = ""
		}
	}
	return rec, nil
}

func parseDirective(word string) (term, error) {
	wrong := permanent("syntax error at %.80q", word)
	t := term{text: word, result: Pass, bits4: 32, bits6: 128}
	rest := word
	if i := strings.IndexByte("+-~?", word[0]); i >= 0 {
		t.result = [...]Result{Pass, Fail, SoftFail, Neutral}[i]
		rest = word[1:]
	}
	n := strings.IndexAny(rest, ":/")
	if n < 0 {
		n = len(rest)
	}
	t.mechanism = strings.ToLower(rest[:n])
	rest = rest[n:]
	ok := false
	switch t.mechanism {
	case "all":
		ok = rest == ""
	case "include", "exists":
		t.domain, ok = cutColon(rest)
		ok = ok && isDomainSpec(t.domain)
	case "ptr":
		t.domain, ok = cutColon(rest)
		ok = rest == "" || ok && isDomainSpec(t.domain)
	case "a", "mx":
		ok = t.parseCIDR(rest)
	case "ip4", "ip6":
		ok = t.parseNetwork(rest)
	}
	if !ok {
		return term{}, wrong
	}
	return t, nil
}

func cutColon(s string) (string, bool) { return strings.CutPrefix(s, ":") }

// parseCIDR parses [":" domain-spec] [dual-cidr-length].
func (t *term) parseCIDR(s string) bool {
	m := cidrRE.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	if m[2] != "" {
		t.bits4, _ = strconv.Atoi(m[2])
	}
	if m[3] != "" {
		t.bits6, _ = strconv.Atoi(m[3])
	}
	if t.bits4 > 32 || t.bits6 > 128 {
		return false
	}
	if m[1] == "" {
		return true
	}
	var ok bool
	t.domain, ok = cutColon(m[1])
	return ok && isDomainSpec(t.domain)
}

// parseNetwork parses ":" network [cidr-length].
func (t *term) parseNetwork(s string) bool {
	s, ok := cutColon(s)
	if !ok {
		return false
	}
	addr, length, sized := strings.Cut(s, "/")
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Zone() != "" || ip.Is4() != (t.mechanism == "ip4") {
		return false
	}
	bits := ip.BitLen()
	if sized {
		n, err := strconv.Atoi(length)
		if err != nil || strconv.Itoa(n) != length || n < 0 || n > bits {
			return false
		}
		bits = n
	}
	if ip.Is4In6() { // ip6:::ffff:192.0.2.1 stands for no client that has an IPv4 address
		t.network = netip.PrefixFrom(ip, bits)
		return true
	}
	t.network, err = ip.Prefix(bits)
	return err == nil
}

// isDomainSpec: a macro-string that ends in a macro or in "." toplabel ["."].
func isDomainSpec(s string) bool {
	if !isMacroString(s, false) {
		return false
	}
	if macroAtEnd(s) {
		return true
	}
	s = strings.TrimSuffix(s, ".")
	i := strings.LastIndexByte(s, '.')
	return i >= 0 && topLabelRE.MatchString(s[i+1:])
}
