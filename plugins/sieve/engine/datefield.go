package engine

import (
	"strconv"
	"strings"
	"time"
)

// parseDate reads a date of RFC 5322 §3.3 and §4.3, alone or at the end of a field like Received.
func parseDate(s string) (time.Time, bool) {
	p := dateParser(withoutComments(s[strings.LastIndexByte(s, ';')+1:]))
	if name := p.letters(); name != "" && (len(name) != 3 || !p.skip(",")) {
		return time.Time{}, false
	}
	day, okDay := p.number(1, 2, 31)
	month, okMonth := monthOf(p.letters())
	year, okYear := p.year()
	hour, okHour := p.number(1, 2, 23)
	okHour = okHour && p.skip(":.")
	minute, okMinute := p.number(2, 2, 59)
	second, okSecond := 0, true
	if p.skip(":.") {
		second, okSecond = p.number(2, 2, 60)
	}
	zone, okZone := p.zone()
	if !okDay || !okMonth || !okYear || !okHour || !okMinute || !okSecond || !okZone {
		return time.Time{}, false
	}
	t := time.Date(year, month, day, hour, minute, min(second, 59), 0, zone) // there are no leap seconds here
	return t, t.Day() == day
}

// dateParser is what is left of a date.
type dateParser string

// run takes what is made of the characters that fit, and the blanks before it.
func (p *dateParser) run(fits func(c byte) bool) string {
	s := strings.TrimLeft(string(*p), " \t\r\n")
	n := 0
	for n < len(s) && fits(s[n]) {
		n++
	}
	*p = dateParser(s[n:])
	return s[:n]
}

func (p *dateParser) letters() string {
	return p.run(func(c byte) bool { return isLetter(c) && c != '_' })
}

// number takes a number with so many digits.
func (p *dateParser) number(least, most, highest int) (int, bool) {
	digits := p.run(isDigit)
	n, err := strconv.Atoi(digits)
	return n, err == nil && len(digits) >= least && len(digits) <= most && n <= highest
}

// skip takes one of the characters, and reports whether it is there.
func (p *dateParser) skip(chars string) bool {
	s := strings.TrimLeft(string(*p), " \t\r\n")
	if s == "" || strings.IndexByte(chars, s[0]) < 0 {
		return false
	}
	*p = dateParser(s[1:])
	return true
}

func monthOf(s string) (time.Month, bool) {
	if len(s) < 3 {
		return 0, false
	}
	n := strings.Index("janfebmaraprmayjunjulaugsepoctnovdec", lowerASCII(s[:3]))
	return time.Month(n/3 + 1), n >= 0 && n%3 == 0
}

// year takes a year; short ones are those of RFC 5322 §4.3.
func (p *dateParser) year() (int, bool) {
	before := len(strings.TrimLeft(string(*p), " \t\r\n"))
	n, ok := p.number(2, 4, 9999)
	switch digits := before - len(*p); {
	case digits == 2 && n < 50:
		n += 2000
	case digits < 4:
		n += 1900
	}
	return n, ok && n >= 1900
}

// zone takes an offset or the name of a zone. What is not known, like what is missing, is Universal Time (RFC 5322
// §4.3).
func (p *dateParser) zone() (*time.Location, bool) {
	if *p != "" && strings.IndexByte(" \t\r\n", (*p)[0]) < 0 {
		return nil, false
	}
	switch sign := p.run(func(c byte) bool { return c == '+' || c == '-' }); sign {
	case "":
		names := map[string]int{"edt": -4, "est": -5, "cdt": -5, "cst": -6, "mdt": -6, "mst": -7, "pdt": -7, "pst": -8}
		return time.FixedZone("", names[lowerASCII(p.letters())]*3600), true
	case "+", "-":
		if z, ok := parseZone(sign + p.run(isDigit)); ok {
			return z, true
		}
		return time.UTC, true
	}
	return nil, false
}
