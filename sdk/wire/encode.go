package wire

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// FilterRequest is the call for one version of a message. A plugin that needs the header
// only is given no body.
func FilterRequest(m *mail.Message, needs sdk.Need) (*proto.FilterRequest, error) {
	msg, err := message(m, needs == sdk.NeedBody)
	if err != nil {
		return nil, err
	}
	return &proto.FilterRequest{Message: msg}, nil
}

// GateRequest is the call for what a client is about to do. Recipients are left out.
func GateRequest(a *sdk.Attempt) *proto.GateRequest {
	e := a.Envelope
	e.Recipients = nil
	return &proto.GateRequest{Stage: proto.Stage(a.Stage), Envelope: envelope(&e), Recipient: path(a.Recipient), Accepted: uint32(a.Accepted), Size: a.Size}
}

// DeliverRequest is the call for one delivery.
func DeliverRequest(d *sdk.Delivery) (*proto.DeliverRequest, error) {
	msg, err := message(d.Message, true)
	if err != nil {
		return nil, err
	}
	return &proto.DeliverRequest{
		Key:       text(d.Key),
		Recipient: path(d.Recipient),
		Folder:    text(d.Folder),
		Flags:     texts(d.Flags),
		Create:    d.Create,
		Fresh:     d.Fresh,
		Message:   msg,
	}, nil
}

// RoomRequest is the call that asks whether a message would be taken.
func RoomRequest(recipient mail.Path, size int64) *proto.RoomRequest {
	return &proto.RoomRequest{Recipient: path(recipient), Size: size}
}

// ConfigureRequest is the call that configures a plugin.
func ConfigureRequest(c sdk.Config) *proto.ConfigureRequest {
	return &proto.ConfigureRequest{Settings: c.Settings, Hostname: text(c.Hostname), Postmaster: text(c.Postmaster), DataDir: text(c.DataDir), DnsServers: c.DNSServers}
}

func message(m *mail.Message, body bool) (*proto.Message, error) {
	if n := len(m.Header.Block()); n > proto.MaxHeader {
		return nil, fmt.Errorf("header block of %d bytes does not fit into a plugin call", n)
	}
	pm := &proto.Message{
		Envelope: envelope(&m.Envelope),
		Header:   m.Header.Block(),
		Scores:   m.Scores,
		Notes:    notes(m.Notes),
	}
	if body {
		if len(m.Body.Inline) > proto.MaxInline {
			return nil, fmt.Errorf("inline body of %d bytes does not fit into a plugin call", len(m.Body.Inline))
		}
		b := &m.Body
		pm.Body = &proto.Body{Inline: b.Inline, Path: b.Path, Offset: b.Offset, Size: b.Size, Sum: b.Sum, Summed: b.Summed}
	}
	return pm, nil
}

func envelope(e *mail.Envelope) *proto.Envelope {
	pe := &proto.Envelope{
		Id:          text(e.ID),
		Origin:      proto.Origin(e.Origin),
		ReversePath: path(e.ReversePath),
		BodyType:    uint32(e.BodyType),
		Utf8:        e.UTF8,
		RequireTls:  e.RequireTLS,
		Ret:         uint32(e.Return),
		EnvelopeId:  text(e.EnvelopeID),
		Client:      client(&e.Client),
		Notes:       notes(e.Notes),
		Size:        e.Size,
	}
	if len(e.Recipients) > 0 {
		pe.Recipients = make([]*proto.Recipient, len(e.Recipients))
	}
	for i, r := range e.Recipients {
		pe.Recipients[i] = &proto.Recipient{
			Path:     path(r.Path),
			Original: path(r.Original),
			Notify:   uint32(r.Notify),
			Orcpt:    text(r.ORCPT),
		}
	}
	return pe
}

func client(c *mail.Client) *proto.Client {
	pc := &proto.Client{
		Port:        uint32(c.Port),
		Helo:        text(c.Helo),
		Host:        text(c.Host),
		User:        text(c.User),
		Protocol:    text(c.Protocol),
		Tls:         text(c.TLS),
		Listener:    text(c.Listener),
		Class:       proto.Class(c.Class),
		Mechanism:   text(c.Mechanism),
		Ptr:         text(c.PTR),
		Connections: uint32(c.Connections),
	}
	if c.Addr.IsValid() {
		pc.Addr = c.Addr.String()
	}
	return pc
}

func path(p mail.Path) *proto.Path {
	if p.IsZero() {
		return nil
	}
	return &proto.Path{Local: text(p.Local), Domain: p.Domain.String()}
}

// text makes s what protobuf takes. What clients say may be no UTF-8, and one message must
// not fail because of that.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func texts(ss []string) []string {
	var out []string
	for _, s := range ss {
		out = append(out, text(s))
	}
	return out
}

// notes returns the map itself where it can travel as it is.
func notes(notes map[string]string) map[string]string {
	for k, v := range notes {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return validNotes(notes)
		}
	}
	return notes
}

func validNotes(notes map[string]string) map[string]string {
	out := make(map[string]string, len(notes))
	for k, v := range notes {
		out[text(k)] = text(v)
	}
	return out
}
