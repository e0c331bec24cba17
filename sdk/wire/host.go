package wire

import (
	"net/netip"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// What plugins send with their calls to the host, and what it answers.

// Path reads an address that a plugin sent; the zero Path if there is none.
func Path(p *proto.Path) (mail.Path, error) { return address(p) }

// Paths puts addresses on the wire.
func Paths(ps []mail.Path) []*proto.Path {
	var out []*proto.Path
	for _, p := range ps {
		out = append(out, path(p))
	}
	return out
}

// Account puts what is known of an address on the wire.
func Account(a sdk.Account) *proto.LookupResponse {
	r := &proto.LookupResponse{Local: a.Local, Targets: Paths(a.Targets)}
	if i := a.Info; i != nil {
		r.Account = &proto.AccountInfo{Address: path(i.Address), DisplayName: text(i.DisplayName), Enabled: i.Enabled,
			QuotaBytes: i.QuotaBytes, QuotaMessages: i.QuotaMessages, Settings: make(map[string]string, len(i.Settings))}
		for k, v := range i.Settings {
			r.Account.Settings[text(k)] = text(v)
		}
	}
	return r
}

// Status puts a status on the wire.
func Status(s mail.Status) *proto.Status {
	return &proto.Status{Code: int32(s.Code), Enhanced: []int32{int32(s.Enhanced[0]), int32(s.Enhanced[1]), int32(s.Enhanced[2])},
		Text: text(s.Text), Remote: text(s.Remote)}
}

// Client reads what a plugin says of its own client. What is no short line is left out; the
// class, the user and how that logged in are never the plugin's to say.
func Client(c *proto.Client) mail.Client {
	word := func(s string) string {
		if !isLine(s, 255) {
			return ""
		}
		return s
	}
	addr, _ := netip.ParseAddr(c.GetAddr())
	return mail.Client{Addr: addr.Unmap(), Port: uint16(c.GetPort()), Helo: word(c.GetHelo()), Host: word(c.GetHost()),
		Protocol: word(c.GetProtocol()), TLS: word(c.GetTls()), Listener: word(c.GetListener()), PTR: word(c.GetPtr()), Connections: int(c.GetConnections())}
}
