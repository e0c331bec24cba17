package sdk

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-mail/postern/sdk/internal/draft"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Planner decides what a local recipient wants done with a message: a Sieve script, say.
// The domains that name the plugin in their key planner ask it.
type Planner interface {
	// Plan is called once for each local recipient of an accepted message (the one
	// recipient of m's envelope), before it goes into the mailbox, concurrently. It must
	// have no side effects, for it is called again if the gateway could not carry the plan
	// out: what has to be remembered is part of the plan, and is carried out with it, all or
	// nothing. [Host.Remembered] asks for what was remembered, [Host.Folders] for what is there. An error means "try again
	// later"; a nil plan keeps.
	Plan(ctx context.Context, m *mail.Message) (*Plan, error)
}

// Plan is what becomes of a message. The zero Plan keeps it in the inbox, and so does every
// plan that neither keeps, redirects, discards nor rejects it: mail is not lost by accident.
type Plan struct {
	Actions  []PlanAction
	Remember []Mark
	Notes    []string // lines for the trace of the message, 16 at most
}

// PlanKind says what a PlanAction does.
type PlanKind uint8

// The kinds. The numbers are part of the protocol; do not reorder.
const (
	PlanKeep     PlanKind = iota + 1 // into Folder with Flags
	PlanRedirect                     // to Path
	PlanDiscard                      // for Reason
	PlanReject                       // with Status
	PlanVacation                     // a reply of Header and Body to the reverse-path
	PlanNotify                       // a message of Header and Body to Path
)

// PlanAction is one thing to do.
type PlanAction struct {
	Kind   PlanKind
	Folder string   // "" is the inbox
	Flags  []string // IMAP flags and keywords to set
	Create bool     // make the folder if it does not exist; else the mailbox may use the inbox
	Path   mail.Path
	Status mail.Status
	Reason string
	Header mail.Header // of PlanKeep and PlanRedirect see [Plan.WithHeader]
	Body   []byte      // in wire form (CRLF), at most 64 KiB
	// NewBody is the body with which a message is kept or redirected; see [Plan.WithBody].
	NewBody Section
	// Own says that what is kept is not the message but another one, with Header and NewBody: a
	// copy of what was sent, say. Its reverse-path is null, and nobody is told of its delivery.
	Own bool
}

// Mark is something to remember for a time.
type Mark struct {
	Key      string // 1 to 256 bytes of text
	Lifetime time.Duration
}

// Keep stores the message in a folder ("": the inbox) with flags.
func (p *Plan) Keep(folder string, flags ...string) *Plan {
	return p.add(PlanAction{Kind: PlanKeep, Folder: folder, Flags: flags})
}

// File is Keep into a folder that is made if it does not exist.
func (p *Plan) File(folder string, flags ...string) *Plan {
	return p.add(PlanAction{Kind: PlanKeep, Folder: folder, Flags: flags, Create: true})
}

// Redirect sends the message on to another address, with its reverse-path. The manifest
// declares [MayEditRcpt]. A redirect that would go round in circles keeps instead.
func (p *Plan) Redirect(to mail.Path) *Plan { return p.add(PlanAction{Kind: PlanRedirect, Path: to}) }

// Discard throws the message away; the reason goes on record. The manifest declares
// [MayDiscard].
func (p *Plan) Discard(reason string) *Plan {
	return p.add(PlanAction{Kind: PlanDiscard, Reason: reason})
}

// Reject refuses the message; status must be permanent. The sender is told if he is known
// (he logged in, is in a relay network, or a plugin has left a note "authenticated"); else the
// message is discarded, for the address may be forged. There is nothing beside it but marks,
// notifications and copies of them ([PlanAction].Own). The manifest declares [MayReject].
func (p *Plan) Reject(status mail.Status) *Plan {
	return p.add(PlanAction{Kind: PlanReject, Status: status})
}

// Vacation replies to the reverse-path, with a null reverse-path; to a null one it does
// nothing. Auto-Submitted, Date and Message-ID are added if they are missing. The manifest
// declares [MaySubmit] in Host.
func (p *Plan) Vacation(header mail.Header, body []byte) *Plan {
	return p.add(PlanAction{Kind: PlanVacation, Header: header, Body: body})
}

// Notify sends a message to somebody, with a null reverse-path, else like Vacation.
func (p *Plan) Notify(to mail.Path, header mail.Header, body []byte) *Plan {
	return p.add(PlanAction{Kind: PlanNotify, Path: to, Header: header, Body: body})
}

// WithHeader puts a header block in the place of the message's own, for the keep or redirect that was
// added last. The manifest declares [MayEditHeader].
func (p *Plan) WithHeader(h mail.Header) *Plan {
	if n := len(p.Actions); n > 0 {
		p.Actions[n-1].Header = h
	}
	return p
}

// WithBody puts a body in the place of the message's own, for the keep or redirect that was added
// last; several may have the same. The manifest declares [MayReplaceBody].
func (p *Plan) WithBody(s Section) *Plan {
	if n := len(p.Actions); n > 0 {
		p.Actions[n-1].NewBody = s
	}
	return p
}

// Note adds a line to the trace of the message.
func (p *Plan) Note(line string) *Plan {
	p.Notes = append(p.Notes, line)
	return p
}

// AndRemember marks a key for this recipient, for a time.
func (p *Plan) AndRemember(key string, lifetime time.Duration) *Plan {
	p.Remember = append(p.Remember, Mark{key, lifetime})
	return p
}

func (p *Plan) add(a PlanAction) *Plan {
	p.Actions = append(p.Actions, a)
	return p
}

func encodePlan(p *Plan) *proto.PlanResponse {
	r := &proto.PlanResponse{}
	if p == nil {
		return r
	}
	for _, a := range p.Actions {
		pa := &proto.PlanAction{Kind: proto.PlanKind(a.Kind), Folder: line(a.Folder), Path: encodePath(a.Path), Status: encodeStatus(a.Status),
			Reason: line(a.Reason), Header: a.Header.Block(), Body: a.Body, Create: a.Create, Own: a.Own}
		if s := a.NewBody; !s.IsZero() {
			pa.NewBody = &proto.Section{Draft: s.Draft, Offset: s.Offset, Size: s.Size}
		}
		for _, f := range a.Flags {
			pa.Flags = append(pa.Flags, line(f))
		}
		r.Actions = append(r.Actions, pa)
	}
	for _, m := range p.Remember {
		r.Remember = append(r.Remember, &proto.PlanMark{Key: validUTF8(m.Key), Lifetime: seconds(m.Lifetime)})
	}
	for _, n := range p.Notes {
		r.Notes = append(r.Notes, line(n))
	}
	return r
}

func (s *server) Plan(ctx context.Context, r *proto.PlanRequest) (*proto.PlanResponse, error) {
	d := draft.Draft{Path: r.Draft}
	if d.Path != "" {
		ctx = draft.With(ctx, &d)
		defer d.Close() // after a panic, too
	}
	p, err := s.planner.Plan(ctx, decodeMessage(r.Message))
	if err != nil {
		return nil, failure(err)
	}
	if err := d.Close(); err != nil {
		return nil, failure(fmt.Errorf("writing a new body: %w", err))
	}
	if p == nil {
		p = &Plan{}
	}
	return encodePlan(p), nil
}
