package sieve

import (
	"bytes"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk"
)

// copied is a copy of a message that is sent, to be filed (RFC 8580).
type copied struct {
	action sdk.PlanAction
	body   []byte
}

// version makes the action that was added last one of the message as scripts have changed it.
func (p *planning) version(edited *engine.Message) error {
	if edited == nil {
		edited = p.edited // by an earlier script
	}
	if edited == nil {
		return nil
	}
	if !bytes.Equal(edited.Header.Block(), p.m.Header.Block()) {
		p.plan.WithHeader(edited.Header)
	}
	if edited.Body.Path != "" || sameBytes(edited.Body.Inline, p.m.Body.Inline) {
		return nil // scripts write bodies to memory: it is the message's own
	}
	section, err := p.write(edited.Body.Inline)
	p.plan.WithBody(section)
	return err
}

// sameBytes reports whether a and b are the same piece of memory.
func sameBytes(a, b []byte) bool { return len(a) == len(b) && first(a) == first(b) }

func first(b []byte) *byte {
	if len(b) == 0 {
		return nil
	}
	return &b[0]
}

// write puts a body into the draft, once.
func (p *planning) write(body []byte) (sdk.Section, error) {
	if s, ok := p.bodies[first(body)]; ok && s.Size == int64(len(body)) {
		return s, nil
	}
	if p.draft == nil {
		var err error
		if p.draft, err = sdk.NewBody(p.ctx); err != nil {
			return sdk.Section{}, temporary{err}
		}
		p.bodies = make(map[*byte]sdk.Section)
	}
	if _, err := p.draft.Write(body); err != nil {
		return sdk.Section{}, temporary{err}
	}
	s := p.draft.Cut()
	p.bodies[first(body)] = s
	return s, nil
}

// temporary is an error that is no fault of a script.
type temporary struct{ error }

// fileCopy files a copy of a message that is sent.
func (p *planning) fileCopy(f *engine.FileCopy, m *composed) error {
	if f != nil {
		a := sdk.PlanAction{Kind: sdk.PlanKeep, Folder: p.folder(f.Mailbox, f.SpecialUse), Flags: validFlags(f.Flags), Create: f.Create, Header: m.header()}
		p.copies = append(p.copies, copied{a, m.body})
	}
	return nil
}
