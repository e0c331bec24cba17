package mail

import (
	"net/netip"
	"strings"
)

// Origin says how a message came to be in the queue. Plugins are selected by it.
type Origin uint8

// The origins. The numbers are stored; do not reorder.
const (
	Incoming   Origin = iota + 1 // from a stranger, over SMTP or LMTP
	Submitted                    // from an authenticated client or a relay network
	Internal                     // made by the gateway: DSN, vacation
	Redirected                   // by a Sieve redirect
	Copied                       // a copy made at delivery; copies of a filter keep their message's origin
	Fetched                      // from an external account
)

var originNames = [...]string{Incoming: "incoming", Submitted: "submitted", Internal: "internal", Redirected: "redirected", Copied: "copy", Fetched: "fetched"}

// String is the name used in the configuration.
func (o Origin) String() string {
	if int(o) < len(originNames) && o > 0 {
		return originNames[o]
	}
	return "unknown"
}

// ParseOrigin is the inverse of String.
func ParseOrigin(s string) (Origin, bool) {
	for o, n := range originNames {
		if n == s && n != "" {
			return Origin(o), true
		}
	}
	return 0, false
}

// Class is the class of sender, for failure policies.
type Class uint8

// The classes. The numbers are stored; do not reorder.
const (
	Stranger      Class = iota
	Authenticated       // logged in
	Relay               // connected from a relay network
)

var classNames = [...]string{"stranger", "authenticated", "relay"}

// String is the name used in the configuration.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "unknown"
}

// Client is what is known of the peer that handed a message over.
type Client struct {
	Addr     netip.Addr // invalid for mail that no client brought
	Port     uint16
	Helo     string // as said, printable
	Host     string // verified reverse name, "" if none
	User     string // account logged in as, "" if none
	Protocol string // the "with" word of Received: ESMTPS, LMTP, ... (RFC 3848)
	TLS      string // "TLS1.3 TLS_AES_128_GCM_SHA256"; "" in the clear
	Listener string // name or address of the listener
	Class    Class
	// Mechanism is the SASL mechanism that it logged in with: PLAIN, SCRAM-SHA-256, ...; "" if none.
	Mechanism string
	// PTR is the name that the DNS has for Addr: Host, or one that does not lead back to Addr.
	// Whoever has the address can have any name there, so nothing may be decided by it. "" if
	// there is none, and where the DNS could not say whether it leads back.
	PTR string
	// Connections is how many connections its IPv4 address or IPv6 /64 had with the listener
	// when this one began, this one counted; 0: not counted.
	Connections int
}

// BodyType is the BODY parameter of MAIL (RFC 6152).
type BodyType uint8

// The body types. The numbers are stored; do not reorder.
const (
	Body7Bit BodyType = iota
	Body8BitMIME
)

// Return is the RET parameter of MAIL (RFC 3461 §4.3).
type Return uint8

// The values of RET; the zero value is "not said". The numbers are stored.
const (
	ReturnDefault Return = iota
	ReturnFull
	ReturnHeaders
)

// String is the value of RET, "" if none was said.
func (r Return) String() string {
	switch r {
	case ReturnFull:
		return "FULL"
	case ReturnHeaders:
		return "HDRS"
	}
	return ""
}

// Notify is the NOTIFY parameter of RCPT (RFC 3461 §4.1), a set; zero is "not said".
// The numbers are stored.
type Notify uint8

// The members of a Notify set. NotifyNever stands alone.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// String is the value of NOTIFY, "" if none was said.
func (n Notify) String() string {
	if n&NotifyNever != 0 {
		return "NEVER"
	}
	var words []string
	for i, word := range []string{"SUCCESS", "FAILURE", "DELAY"} {
		if n&(NotifySuccess<<i) != 0 {
			words = append(words, word)
		}
	}
	return strings.Join(words, ",")
}

// Recipient is one forward-path of an envelope.
type Recipient struct {
	Path Path
	// Original is the address that the client gave where an alias or group led to Path;
	// the zero Path where Path itself was given.
	Original Path
	Notify   Notify
	// ORCPT is the original recipient as "type;address", decoded (RFC 3461 §4.2).
	ORCPT string
}

// Given returns the address that the client gave.
func (r Recipient) Given() Path {
	if r.Original.IsZero() {
		return r.Path
	}
	return r.Original
}

// Envelope is all of a message that is neither header nor body.
type Envelope struct {
	// ID is the queue id of this version of the message, e.g. "0c1f3k9w2m4xq".
	ID          string
	Origin      Origin
	ReversePath Path
	Recipients  []Recipient
	BodyType    BodyType
	UTF8        bool // SMTPUTF8 (RFC 6531)
	RequireTLS  bool // REQUIRETLS (RFC 8689)
	Return      Return
	EnvelopeID  string // ENVID, decoded (RFC 3461 §4.4)
	Client      Client
	// Size is what the client declared at MAIL (RFC 1870), in bytes; 0: nothing. Once the
	// message is in it is 0: nobody needs a promise any more.
	Size int64
	// Notes are what gates said in the session and the transaction, "plugin/name". Once
	// the message is in they are in [Message] instead.
	Notes map[string]string
}
