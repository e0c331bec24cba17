package arcchain

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/dkimsig"
)

// MaxSets is how many sets a chain may have (RFC 8617 §4.2.1).
const MaxSets = 50

// The names of the three fields of a set.
const (
	ResultsField = "ARC-Authentication-Results"
	MessageField = "ARC-Message-Signature"
	SealField    = "ARC-Seal"
)

// CV is what a seal says of the chain before it, and the state of a chain (RFC 8617 §4.4).
type CV string

// The states.
const (
	None CV = "none"
	Pass CV = "pass"
	Fail CV = "fail"
)

// member is one field of a set.
type member struct {
	raw []byte             // as it stands in the message
	sig *dkimsig.Signature // not of the results
	cv  CV                 // of the seal
}

// A set has the three fields of one instance, by kind.
type set [3]member

// The kinds, in the order in which a seal signs them (RFC 8617 §5.1.1).
const (
	results = iota
	message
	seal
)

var kinds = [...]string{results: "arc-authentication-results", message: "arc-message-signature", seal: "arc-seal"}

// chain is what the header has of ARC.
type chain struct {
	sets []set // by instance, from 1; complete and in order if the chain is well-formed
	// highest is the greatest instance that was found, in a malformed chain too.
	highest int
	// ended: a seal of the highest instance says that the chain has failed.
	ended bool
}

// collect finds the sets of a header. An error says how the chain is malformed (RFC 8617
// §5.2); what is found until then counts.
func collect(f *dkimsig.Fields) (*chain, error) {
	c := &chain{}
	sets := make([]set, MaxSets)
	failed := 0 // the greatest instance whose seal says that the chain has failed
	var first error
	for kind, name := range kinds {
		if f.Count(name) > MaxSets {
			return &chain{highest: MaxSets}, errors.New("there are too many ARC fields")
		}
		for _, raw := range f.Named(name) {
			n, m, err := parse(kind, raw)
			c.highest = max(c.highest, n)
			if err == nil && sets[n-1][kind].raw != nil {
				err = fmt.Errorf("instance %d has a field twice", n)
			}
			if err == nil {
				sets[n-1][kind] = m
			} else if first == nil {
				first = err
			}
			if kind == seal && m.cv == Fail {
				failed = max(failed, n)
			}
		}
	}
	c.sets, c.ended = sets[:c.highest], failed > 0 && failed == c.highest
	if first != nil {
		return c, first
	}
	return c, c.complete()
}

// complete checks that no field is missing, and what the seals say (RFC 8617 §5.2 step 3).
func (c *chain) complete() error {
	for i, s := range c.sets {
		for kind, m := range s {
			if m.raw == nil {
				return fmt.Errorf("instance %d has no %s", i+1, kinds[kind])
			}
		}
		want := Pass
		if i == 0 {
			want = None
		}
		if s[seal].cv != want {
			return fmt.Errorf("seal %d says cv=%s", i+1, s[seal].cv)
		}
	}
	return nil
}

// parse reads one field. The instance is 0 if there is none.
func parse(kind int, raw []byte) (n int, m member, err error) {
	_, value, _ := strings.Cut(string(raw), ":")
	m.raw = raw
	if kind == results {
		// RFC 8617 §4.1.1: the instance is first and ends with a semicolon.
		head, _, more := strings.Cut(value, ";")
		name, number, ok := strings.Cut(head, "=")
		if !ok || !more || strings.Trim(name, fws) != "i" {
			return 0, m, errors.New("authentication results have no instance")
		}
		n, err = instance(strings.Trim(number, fws))
		return n, m, err
	}
	tags, err := dkimsig.ParseTags(value)
	if err != nil {
		return 0, m, err
	}
	i, _ := tags.Get("i")
	if n, err = instance(i); err != nil {
		return 0, m, err
	}
	if kind == message {
		// Other than for DKIM the canonicalization is relaxed where nothing is said: the
		// public tests and the other implementations agree on that.
		m.sig, err = dkimsig.ParseSignature(tags, dkimsig.Relaxed)
	} else {
		cv, _ := tags.Get("cv")
		m.cv = CV(strings.ToLower(cv))
		m.sig, err = dkimsig.ParseSeal(tags)
	}
	if err == nil {
		err = check(kind, m, tags)
	}
	return n, m, err
}

// check applies what RFC 8617 says about tags beyond RFC 6376.
func check(kind int, m member, tags dkimsig.Tags) error {
	if a := m.sig.Algorithm; a != dkimsig.RSA && a != dkimsig.Ed25519 {
		return errors.New("an algorithm is not known")
	}
	switch {
	case kind == message && slices.Contains(m.sig.Fields, kinds[seal]):
		return errors.New("a message signature covers seals") // §4.1.2
	case kind == seal && tags.Has("h"):
		return errors.New("a seal has the tag h") // §4.1.3
	case kind == seal && m.cv != None && m.cv != Pass && m.cv != Fail:
		return errors.New("a seal has no valid tag cv")
	}
	return nil
}

const fws = " \t\r\n"

func instance(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n < 1 || n > MaxSets || s[0] == '+' {
		return 0, errors.New("an instance is not a number from 1 to 50")
	}
	return int(n), nil
}
