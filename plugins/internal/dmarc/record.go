package dmarc

import (
	"net/url"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Policy is what an owner wants done with mail that fails.
type Policy string

// The policies; "" where a record has none.
const (
	None       Policy = "none"
	Quarantine Policy = "quarantine"
	Reject     Policy = "reject"
)

// below is the policy of a domain that is testing (RFC 9989 §4.7, t).
func (p Policy) below() Policy {
	if p == Reject {
		return Quarantine
	}
	return None
}

// Record is a DMARC policy record (RFC 9989 §4.7).
type Record struct {
	P, SP, NP Policy // SP and NP: "" where it does not say
	// PSD is 'y', 'n' or 'u'.
	PSD byte
	// Testing is t=y.
	Testing bool
	// StrictDKIM and StrictSPF say that alignment is strict.
	StrictDKIM, StrictSPF bool
	// Reports are the addresses that want aggregate reports, with mailto: only.
	Reports []mail.Path
	// FailureOptions is fo=, "0" by default.
	FailureOptions string
	// Unusable says that the policy is missing or invalid and that no reports are wanted
	// either: DMARC does not apply (RFC 9989 §4.10.1).
	Unusable bool
}

// Bounds of what is read of a record.
const (
	maxRecord  = 16 << 10 // bytes
	maxTags    = 50
	maxReports = 10
)

// Parse reads a TXT record. It reports false for what is no DMARC record. A syntax error makes
// a tag be ignored.
func Parse(txt string) (*Record, bool) {
	if len(txt) > maxRecord {
		return nil, false
	}
	r := &Record{PSD: 'u', FailureOptions: "0"}
	valid := true // of the policies that are there
	rua := false
	n := 0
	for tag := range strings.SplitSeq(txt, ";") {
		name, value, found := strings.Cut(tag, "=")
		name, value = strings.ToLower(trim(name)), trim(value)
		if n == 0 {
			if !found || name != "v" || value != "DMARC1" {
				return nil, false
			}
			n++
			continue
		}
		if n++; n > maxTags {
			break
		}
		low := strings.ToLower(value)
		switch name {
		case "p":
			r.P = policy(low)
		case "sp":
			r.SP = policy(low)
			valid = valid && r.SP != ""
		case "np":
			r.NP = policy(low)
			valid = valid && r.NP != ""
		case "psd":
			if low == "y" || low == "n" {
				r.PSD = low[0]
			}
		case "t":
			r.Testing = low == "y"
		case "adkim":
			r.StrictDKIM = low == "s"
		case "aspf":
			r.StrictSPF = low == "s"
		case "fo":
			if isOptions(low) {
				r.FailureOptions = low
			}
		case "rua":
			r.Reports, rua = reports(value)
		}
	}
	if r.P == "" || !valid { // RFC 9989 §4.10.1
		r.P, r.SP, r.NP = None, "", ""
		r.Unusable = !rua
	}
	return r, true
}

func trim(s string) string { return strings.Trim(s, " \t\r\n") }

func policy(s string) Policy {
	switch p := Policy(s); p {
	case None, Quarantine, Reject:
		return p
	}
	return ""
}

func isOptions(s string) bool {
	for o := range strings.SplitSeq(s, ":") {
		if o = trim(o); len(o) != 1 || !strings.Contains("01ds", o) {
			return false
		}
	}
	return true
}

// reports reads the URIs of rua=; any says that at least one is valid, whatever its scheme.
// Obsolete size limits ("!10m") are ignored (RFC 9989 §4.8).
func reports(value string) (addresses []mail.Path, any bool) {
	for uri := range strings.SplitSeq(value, ",") {
		uri, _, _ = strings.Cut(trim(uri), "!")
		u, err := url.Parse(uri)
		if err != nil || u.Scheme == "" || u.Opaque == "" && u.Host == "" {
			continue
		}
		if u.Scheme != "mailto" {
			any = true
			continue
		}
		text, err := url.PathUnescape(u.Opaque)
		if err != nil {
			continue
		}
		p, err := mail.ParsePath(text)
		if _, literal := p.Domain.Literal(); err != nil || p.IsZero() || literal || !p.IsASCII() {
			continue
		}
		any = true
		if len(addresses) < maxReports {
			addresses = append(addresses, p)
		}
	}
	return addresses, any
}
