package mailauth

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/authres"
	"github.com/postern-mail/postern/sdk/mail"
)

// maxNames of a client are looked at.
const maxNames = 5

// iprev is whether a client's address has a name that leads back to it (RFC 8601 §3).
type iprev struct {
	value string // pass, fail, temperror or permerror; "" where there is no client
	name  string // for pass
}

func checkIprev(ctx context.Context, r Resolver, c mail.Client) iprev {
	addr := c.Addr.Unmap().WithZone("")
	switch {
	case !addr.IsValid():
		return iprev{}
	case c.Host != "": // the gateway has looked
		return iprev{"pass", c.Host}
	}
	names, err := r.LookupAddr(ctx, addr.String())
	if len(names) == 0 {
		if err == nil || absent(err) {
			return iprev{value: "permerror"} // it has no name
		}
		return iprev{value: "temperror"}
	}
	network := "ip6"
	if addr.Is4() {
		network = "ip4"
	}
	value := "fail"
	for _, n := range names[:min(len(names), maxNames)] {
		addrs, err := r.LookupNetIP(ctx, network, n)
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == addr }) {
			return iprev{"pass", strings.TrimSuffix(n, ".")}
		}
		if err != nil && !absent(err) {
			value = "temperror"
		}
	}
	return iprev{value: value}
}

func absent(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}

func (f *facts) iprevResult() authres.Result {
	r := authres.Result{Method: "iprev", Value: f.iprev.value, Comment: f.iprev.name}
	switch r.Value {
	case "fail":
		r.Comment = "its name does not lead back to it"
	case "permerror":
		r.Comment = "it has no name"
	}
	r.Add("policy", "iprev", f.client.Addr.Unmap().String())
	return r
}
