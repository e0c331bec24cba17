package arcchain

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/sdk/mail"
)

// Options of a Validator.
type Options struct {
	// Resolver finds keys. Required.
	Resolver dkimsig.Resolver
	// LookupTime limits the look-up of each key. Default: 5 s.
	LookupTime time.Duration
}

// Validator validates chains.
type Validator struct {
	o    Options
	bufs dkimsig.Buffers
}

// New returns a Validator.
func New(o Options) (*Validator, error) {
	if o.Resolver == nil {
		return nil, errors.New("arcchain: there is no resolver")
	}
	if o.LookupTime < 0 {
		return nil, errors.New("arcchain: limits are not below zero")
	}
	if o.LookupTime == 0 {
		o.LookupTime = 5 * time.Second
	}
	return &Validator{o: o}, nil
}

// Chain is what is known of a message's chain. All texts are printable and in one line.
type Chain struct {
	// State is None without ARC fields, else Pass or Fail.
	State CV
	// Unknown says that the DNS did not answer: State is Fail only for now.
	Unknown bool
	Reason  string // why it is Fail; our words, nothing of the message
	// Instances is the greatest instance in the header, in a malformed chain too.
	Instances int
	// Ended: the last seal says that the chain has failed. Nobody may extend it.
	Ended bool
	// Sets are those of a well-formed chain, from instance 1.
	Sets []Set
	// OldestPass is the lowest instance whose message signature and all later ones
	// still hold (RFC 8617 §5.2 step 5); 0: all of them do. It is for chains that pass.
	OldestPass int
}

// Set is who added what.
type Set struct {
	Results  string      // the value of ARC-Authentication-Results, as it stands
	Domain   mail.Domain // d= of the seal
	Selector string      // s= of the seal
	Signer   mail.Domain // d= of the message signature
}

// Last returns the latest set; the zero Set if there is none.
func (c *Chain) Last() Set {
	if len(c.Sets) == 0 {
		return Set{}
	}
	return c.Sets[len(c.Sets)-1]
}

// Validate determines the state of a message's chain (RFC 8617 §5.2). An error means that the
// body could not be read, or that ctx ended meanwhile.
func (v *Validator) Validate(ctx context.Context, m *mail.Message) (*Chain, error) {
	fields := dkimsig.NewFields(m.Header)
	c, err := collect(fields)
	out := &Chain{State: Fail, Instances: c.highest, Ended: c.ended}
	switch {
	case err == nil && c.highest == 0:
		out.State = None
		return out, nil
	case c.ended:
		out.Reason = "the last seal says that the chain has failed" // §5.2 step 2
		return out, nil
	case err != nil:
		out.Reason = err.Error()
		return out, nil
	}
	for _, s := range c.sets {
		_, value, _ := strings.Cut(string(s[results].raw), ":")
		out.Sets = append(out.Sets, Set{strings.TrimSpace(value), s[seal].sig.Domain, s[seal].sig.Selector, s[message].sig.Domain})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{sets: c.sets, fields: fields, keys: dkimsig.NewKeys(ctx, v.o.Resolver, v.o.LookupTime)}
	r.keys.Start(c.sets[c.highest-1][message].sig.QueryName())
	r.keys.Start(c.sets[c.highest-1][seal].sig.QueryName())
	for _, s := range c.sets {
		r.bodies.Want(s[message].sig.Body)
	}
	if err := r.bodies.Read(ctx, &v.bufs, m); err != nil {
		return nil, fmt.Errorf("arc: reading the body: %w", err)
	}
	err = r.chain()
	if cerr := ctx.Err(); cerr != nil {
		return nil, fmt.Errorf("arc: %w", cerr)
	}
	if err != nil {
		out.Reason, out.Unknown = err.Error(), errors.Is(err, dkimsig.ErrDNS)
		return out, nil
	}
	out.State, out.OldestPass = Pass, r.oldest()
	return out, nil
}

// run validates one well-formed chain.
type run struct {
	sets   []set
	fields *dkimsig.Fields
	keys   *dkimsig.Keys
	bodies dkimsig.Bodies
}

// chain checks the latest message signature and all seals (RFC 8617 §5.2 steps 4 and 6).
func (r *run) chain() error {
	last := len(r.sets) - 1
	if err := r.message(last); err != nil {
		return fmt.Errorf("message signature %d: %w", last+1, err)
	}
	sums := sealSums(r.sets)
	for i := last; i >= 0; i-- {
		if i == last-1 { // the latest holds: now it is worth asking for the others
			for _, s := range r.sets[:last] {
				r.keys.Start(s[seal].sig.QueryName())
			}
		}
		if err := r.verify(r.sets[i][seal].sig, sums[i]); err != nil {
			return fmt.Errorf("seal %d: %w", i+1, err)
		}
	}
	return nil
}

// oldest is Chain.OldestPass.
func (r *run) oldest() int {
	for i := len(r.sets) - 2; i >= 0; i-- {
		if r.message(i) != nil {
			return i + 2
		}
	}
	return 0
}

func (r *run) message(i int) error {
	m := r.sets[i][message]
	sum, size := r.bodies.Sum(m.sig.Body)
	if m.sig.Length >= 0 && m.sig.Length != size {
		return errors.New("not all of the body is signed")
	}
	if subtle.ConstantTimeCompare(sum, m.sig.BodyHash) != 1 {
		return errors.New("the body is not what was signed")
	}
	own, _ := dkimsig.WithoutValue(m.raw)
	return r.verify(m.sig, r.fields.Hash(m.sig.Fields, m.sig.Header, own))
}

func (r *run) verify(s *dkimsig.Signature, digest []byte) error {
	record, err := r.keys.Get(s.QueryName())
	if err != nil {
		return err
	}
	if err := record.Suits(s.Algorithm); err != nil {
		return err
	}
	if !record.Verify(digest, s.Value) {
		return errors.New("the header is not what was signed")
	}
	return nil
}

// sealSums are what the seals sign: each all sets up to its own, which is without the value of
// b= (RFC 8617 §5.1.1). It takes time linear in the sum of the sets.
func sealSums(sets []set) [][]byte {
	sums := make([][]byte, len(sets))
	h := sha256.New()
	var buf []byte
	for i, s := range sets {
		buf = dkimsig.AppendRelaxed(buf[:0], s[results].raw)
		buf = dkimsig.AppendRelaxed(buf, s[message].raw)
		h.Write(buf)
		own, _ := dkimsig.WithoutValue(s[seal].raw)
		buf = dkimsig.AppendRelaxed(buf[:0], own)
		sums[i] = sumWith(h, buf[:len(buf)-len("\r\n")])
		buf = dkimsig.AppendRelaxed(buf[:0], s[seal].raw)
		h.Write(buf)
	}
	return sums
}

// sumWith is the sum of what was written to h and of p; h stays as it is.
func sumWith(h hash.Hash, p []byte) []byte {
	c, err := h.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // SHA-256 of the standard library can be cloned
	}
	c.Write(p)
	return c.Sum(nil)
}
