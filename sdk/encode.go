package sdk

import (
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

func encodeManifest(m Manifest, interfaces []string) *proto.Manifest {
	pm := &proto.Manifest{
		Name:       m.Name,
		Version:    m.Version,
		Interfaces: interfaces,
		Needs:      proto.Need(m.Needs),
		May:        uint32(m.May),
		Signs:      m.Signs,
		Network:    m.Network,
		Stages:     uint32(m.Stages),
		Host:       uint32(m.Host),
		Stream:     true,
	}
	for _, o := range m.Origins {
		pm.Origins = append(pm.Origins, proto.Origin(o))
	}
	pm.Owns = lines(m.Owns)
	return pm
}

func lines(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, line(s))
	}
	return out
}

func encodePath(p mail.Path) *proto.Path {
	if p.IsZero() {
		return nil
	}
	return &proto.Path{Local: p.Local, Domain: p.Domain.String()}
}

func encodeStatus(s mail.Status) *proto.Status {
	if s.IsZero() {
		return nil
	}
	return &proto.Status{
		Code:     int32(s.Code),
		Enhanced: []int32{int32(s.Enhanced[0]), int32(s.Enhanced[1]), int32(s.Enhanced[2])},
		Text:     line(s.Text),
		Remote:   line(s.Remote),
	}
}

func encodeOutcome(o Outcome) *proto.Outcome {
	return &proto.Outcome{Action: proto.Action(o.Action), Status: encodeStatus(o.Status), Reason: line(o.Reason)}
}

func encodeVerdict(v *Verdict) *proto.Verdict {
	pv := &proto.Verdict{Outcome: encodeOutcome(v.Outcome)}
	if len(v.Scores) > 0 {
		pv.Scores = make(map[string]float64, len(v.Scores))
		for k, n := range v.Scores {
			pv.Scores[line(k)] = n
		}
	}
	if len(v.PerRecipient) > 0 {
		pv.PerRecipient = make(map[int32]*proto.Outcome, len(v.PerRecipient))
		for i, o := range v.PerRecipient {
			pv.PerRecipient[int32(i)] = encodeOutcome(o)
		}
	}
	for _, e := range v.Edits {
		pv.Edits = append(pv.Edits, encodeEdit(e))
	}
	if len(v.Notes) > 0 {
		pv.Notes = make(map[string]string, len(v.Notes))
		for k, n := range v.Notes {
			pv.Notes[line(k)] = line(n)
		}
	}
	return pv
}

func encodeEdit(e Edit) *proto.Edit {
	pe := &proto.Edit{
		Kind:        proto.EditKind(e.Kind),
		Name:        strings.ToValidUTF8(e.Name, "?"),
		Value:       []byte(e.Value),
		Index:       int32(e.Index),
		Path:        encodePath(e.Path),
		ReversePath: encodePath(e.ReversePath),
		BodyDraft:   e.BodyDraft,
	}
	if e.Recipients != nil {
		pe.Recipients = &proto.Recipients{}
		for _, i := range e.Recipients {
			pe.Recipients.Index = append(pe.Recipients.Index, int32(i))
		}
	}
	return pe
}

// line makes text what the host takes: valid UTF-8 on one line, without control
// characters. An author who passes on what a message or a server said need not think of it.
func line(s string) string {
	plain := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\r' || r == '\n' || r == '\u2028' || r == '\u2029':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}

func validUTF8(s string) string { return strings.ToValidUTF8(s, "?") }
