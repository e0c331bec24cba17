package arcchain

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/authres"
	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/sdk/mail"
)

// Errors of Seal that are about the chain.
var (
	// ErrEnded says that the chain has failed and that its last seal says so: no more
	// seals may be added (RFC 8617 §5.1).
	ErrEnded = errors.New("the chain has ended: its last seal says that it failed")
	// ErrFull says that the chain has as many sets as there may be.
	ErrFull = errors.New("the chain has 50 sets already")
)

// Field is a header field to add.
type Field struct{ Name, Value string }

// Sealed is a new set.
type Sealed struct {
	// Fields are in the order in which they have to be added, each at the top of the header.
	Fields   []Field
	Instance int
	State    CV // what the seal says
}

// Sealer adds sets. It may be used concurrently; the zero value is ready.
type Sealer struct{ bufs dkimsig.Buffers }

// Seal makes the next set. state is what the chain was when the message arrived. Where the
// chain of the message as it is now contradicts it (there is one, there is none, it is
// malformed), what the header shows counts. results are put into the set under its
// instance. An error is ErrEnded, ErrFull, or about the body or the key.
func (s *Sealer) Seal(ctx context.Context, m *mail.Message, k *dkimkey.Key, state CV, results authres.Header, now time.Time) (*Sealed, error) {
	fields := dkimsig.NewFields(m.Header)
	c, err := collect(fields)
	switch {
	case c.ended:
		return nil, ErrEnded
	case c.highest >= MaxSets:
		return nil, ErrFull
	case err == nil && c.highest == 0:
		state = None
	case err != nil || state != Pass:
		state = Fail
	}
	var bodies dkimsig.Bodies
	bodies.Want(dkimsig.Relaxed)
	if err := bodies.Read(ctx, &s.bufs, m); err != nil {
		return nil, err
	}
	hash, _ := bodies.Sum(dkimsig.Relaxed)
	results.Instance = c.highest + 1
	set := newSet{k: k, instance: strconv.Itoa(results.Instance), now: strconv.FormatInt(now.Unix(), 10)}
	first := Field{ResultsField, results.Format()}
	second, err := set.message(fields, hash)
	if err != nil {
		return nil, err
	}
	before := c.sets
	if state == Fail {
		// RFC 8617 §5.1.2: of a chain that has failed only the new set is signed.
		before = nil
	}
	third, err := set.seal(before, first, second, state)
	if err != nil {
		return nil, err
	}
	return &Sealed{[]Field{first, second, third}, results.Instance, state}, nil
}

// newSet is the set that is being made.
type newSet struct {
	k             *dkimkey.Key
	instance, now string
}

// tags are those that both signatures begin with.
func (n *newSet) tags(more ...dkimsig.Tag) dkimsig.Tags {
	return append(dkimsig.Tags{{Name: "i", Value: n.instance}, {Name: "a", Value: n.k.Algorithm}, {Name: "t", Value: n.now},
		{Name: "d", Value: n.k.Domain.String()}, {Name: "s", Value: n.k.Selector}}, more...)
}

// message makes the ARC-Message-Signature. It covers the DKIM signatures too, and no results
// of authentication: others remove those (RFC 8617 §4.1.2).
func (n *newSet) message(fields *dkimsig.Fields, bodyHash []byte) (Field, error) {
	names := append(dkimsig.Choose(fields), slices.Repeat([]string{"dkim-signature"}, min(fields.Count("dkim-signature"), maxSignatures))...)
	tags := n.tags(dkimsig.Tag{Name: "c", Value: "relaxed/relaxed"}, dkimsig.Tag{Name: "h", Value: strings.Join(names, ":")},
		dkimsig.Tag{Name: "bh", Value: base64.StdEncoding.EncodeToString(bodyHash)})
	value, err := dkimsig.SignField(MessageField, tags, n.k.Signer, func(own []byte) []byte {
		return fields.Hash(names, dkimsig.Relaxed, own)
	})
	return Field{MessageField, value}, err
}

// maxSignatures is how many DKIM signatures are covered.
const maxSignatures = 10

func (n *newSet) seal(before []set, first, second Field, state CV) (Field, error) {
	tags := n.tags(dkimsig.Tag{Name: "cv", Value: string(state)})
	value, err := dkimsig.SignField(SealField, tags, n.k.Signer, func(own []byte) []byte {
		sets := append(slices.Clip(before), set{results: {raw: first.raw()}, message: {raw: second.raw()}, seal: {raw: own}})
		return sealSums(sets)[len(sets)-1]
	})
	return Field{SealField, value}, err
}

func (f Field) raw() []byte { return []byte(f.Name + ": " + f.Value + "\r\n") }
