package spam

import (
	"io"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// action is what an engine wants to be done, the stronger the greater.
type action uint8

const (
	noAction action = iota
	greylisting
	addHeader
	rewriteSubject
	softReject
	quarantining
	discarding
	rejecting
)

// actionNames are those of rspamd.
func actionNames() []string {
	return []string{noAction: "no action", greylisting: "greylist", addHeader: "add header", rewriteSubject: "rewrite subject",
		softReject: "soft reject", quarantining: "quarantine", discarding: "discard", rejecting: "reject"}
}

func (a action) String() string { return actionNames()[a] }

// result is what an engine said about a message.
type result struct {
	action    action
	scoreOnly bool // the action says no more than that the score has reached the required one
	score     float64
	required  float64 // the score that the engine compares with
	symbols   []string
	subject   string // instead of the message's own, if the action is rewriteSubject
	text      string // for the reply, "" if the engine has none
	add       []headerField
	remove    []removal
}

type headerField struct {
	name, value string
	atEnd       bool
}

// removal is one field of a name: the n-th from the top (from 1), from the end (below 0), or
// all of them (0).
type removal struct {
	name string
	n    int
}

// percent is the score as a part of the required one, for Sieve's spamtest (RFC 5235).
func (r *result) percent() float64 {
	if r.required <= 0 || r.score <= 0 {
		return 0
	}
	return min(100, 100*r.score/r.required)
}

const (
	maxSymbols = 200 // of one message
	maxSymbol  = 64  // bytes
)

// symbolName makes a name one word; it stands in header fields.
func symbolName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', r == '_', r == '-', r == '.':
			return r
		}
		return '_'
	}, s[:min(len(s), maxSymbol)])
}

// content is what is sent to an engine.
type content struct {
	open func() (io.ReadCloser, error)
	size int64
}

func whole(m *mail.Message) content { return content{m.Open, m.Size()} }
