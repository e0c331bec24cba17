package sieve

import (
	"bytes"
	"errors"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
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
	if err := p.usable(edited); err != nil {
		return err
	}
	if !bytes.Equal(edited.Header.Block(), p.m.Header.Block()) {
		p.plan.WithHeader(edited.Header)
	}
	if !p.rewritten(edited) {
		return nil
	}
	section, err := p.write(edited.Body.Inline)
	p.plan.WithBody(section)
	return err
}

// rewritten reports whether a message has another body. Scripts write bodies to memory; else it is
// the message's own.
func (p *planning) rewritten(m *engine.Message) bool {
	return m.Body.Path == "" && !sameBytes(m.Body.Inline, p.m.Body.Inline)
}

// usable says why the gateway would not take what a script has made of the message.
func (p *planning) usable(m *engine.Message) error {
	if block := m.Header.Block(); !bytes.Equal(block, p.m.Header.Block()) {
		if h, rest := mail.SplitMessage(block); len(block) > maxHeader || !wireForm(block) || len(rest) > 0 || len(h.Block()) != len(block) {
			return errHeader
		}
	}
	switch {
	case !p.rewritten(m):
	case !wireForm(m.Body.Inline):
		return errBody
	case int64(len(m.Body.Inline)) > p.m.Size()+maxGrowth:
		return errGrowth
	}
	return nil
}

// What the gateway would not take is a fault of the script: the message must not wait for ever.
const (
	maxHeader = proto.MaxHeader // bytes
	maxGrowth = 1 << 20         // by which a message may grow, in bytes
)

var (
	errHeader = errors.New("the header that the script makes is too large, or has a NUL")
	errBody   = errors.New("the body that the script makes has a bare CR or a NUL")
	errGrowth = errors.New("the body that the script makes is too large")
)

// wireForm reports whether CRLF is the only line end in b, and there is no NUL.
func wireForm(b []byte) bool {
	n := bytes.Count(b, []byte("\r\n"))
	return bytes.Count(b, []byte("\r")) == n && bytes.Count(b, []byte("\n")) == n && bytes.IndexByte(b, 0) < 0
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

// Unwrap returns what is wrong.
func (t temporary) Unwrap() error { return t.error }

// fileCopy files a copy of a message that is sent.
func (p *planning) fileCopy(f *engine.FileCopy, m *composed) error {
	if f != nil {
		folder, err := p.folder(f.Mailbox, f.SpecialUse)
		if err != nil {
			return err
		}
		a := sdk.PlanAction{Kind: sdk.PlanKeep, Folder: folder, Flags: validFlags(f.Flags), Create: f.Create, Header: m.header(), Own: true}
		p.copies = append(p.copies, copied{a, m.body})
	}
	return nil
}
