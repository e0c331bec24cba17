package sdk

import (
	"net/netip"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// The plugin's half of the protocol: what comes from the host becomes values. The host is
// trusted; what it says is not checked again.

func decodePath(p *proto.Path) mail.Path {
	if p == nil || p.Local == "" && p.Domain == "" {
		return mail.Path{}
	}
	d, _ := mail.ParseDomain(p.Domain) // a bare "postmaster" has none
	return mail.Path{Local: p.Local, Domain: d}
}

func decodeClient(c *proto.Client) mail.Client {
	if c == nil {
		return mail.Client{}
	}
	addr, _ := netip.ParseAddr(c.Addr)
	return mail.Client{
		Addr:        addr,
		Port:        uint16(c.Port),
		Helo:        c.Helo,
		Host:        c.Host,
		User:        c.User,
		Protocol:    c.Protocol,
		TLS:         c.Tls,
		Listener:    c.Listener,
		Class:       mail.Class(c.Class),
		Mechanism:   c.Mechanism,
		PTR:         c.Ptr,
		Connections: int(c.Connections),
	}
}

func decodeEnvelope(e *proto.Envelope) mail.Envelope {
	if e == nil {
		return mail.Envelope{}
	}
	env := mail.Envelope{
		ID:          e.Id,
		Origin:      mail.Origin(e.Origin),
		ReversePath: decodePath(e.ReversePath),
		BodyType:    mail.BodyType(e.BodyType),
		UTF8:        e.Utf8,
		RequireTLS:  e.RequireTls,
		Return:      mail.Return(e.Ret),
		EnvelopeID:  e.EnvelopeId,
		Client:      decodeClient(e.Client),
		Notes:       e.Notes,
		Size:        e.Size,
	}
	if len(e.Recipients) > 0 {
		env.Recipients = make([]mail.Recipient, len(e.Recipients))
	}
	for i, r := range e.Recipients {
		env.Recipients[i] = mail.Recipient{
			Path:     decodePath(r.Path),
			Original: decodePath(r.Original),
			Notify:   mail.Notify(r.Notify),
			ORCPT:    r.Orcpt,
		}
	}
	return env
}

func decodeMessage(m *proto.Message) *mail.Message {
	if m == nil {
		return &mail.Message{}
	}
	msg := &mail.Message{
		Envelope: decodeEnvelope(m.Envelope),
		Header:   mail.NewHeader(m.Header),
		Scores:   m.Scores,
		Notes:    m.Notes,
	}
	if b := m.Body; b != nil {
		msg.Body = mail.Body{Inline: b.Inline, Path: b.Path, Offset: b.Offset, Size: b.Size, Sum: b.Sum, Summed: b.Summed}
	}
	return msg
}

func decodeAttempt(r *proto.GateRequest) *Attempt {
	return &Attempt{Stage: Stage(r.Stage), Envelope: decodeEnvelope(r.Envelope), Recipient: decodePath(r.Recipient), Accepted: int(r.Accepted), Size: r.Size}
}

func decodeDelivery(r *proto.DeliverRequest) *Delivery {
	return &Delivery{
		Key:       r.Key,
		Recipient: decodePath(r.Recipient),
		Folder:    r.Folder,
		Flags:     r.Flags,
		Create:    r.Create,
		Fresh:     r.Fresh,
		Message:   decodeMessage(r.Message),
	}
}

func decodeConfig(r *proto.ConfigureRequest) Config {
	return Config{Settings: r.Settings, Hostname: r.Hostname, Postmaster: r.Postmaster, DataDir: r.DataDir, DNSServers: r.DnsServers}
}
