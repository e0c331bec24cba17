package mailauth

import (
	"context"

	"github.com/postern-mail/postern/plugins/internal/authres"
	"github.com/postern-mail/postern/plugins/internal/peer"
	"github.com/postern-mail/postern/sdk/mail"
)

// iprev is whether a client's address has a name that leads back to it (RFC 8601 §3).
type iprev struct {
	value string // pass, fail, temperror or permerror; "" where there is no client
	name  string // for pass
}

func checkIprev(ctx context.Context, r Resolver, c mail.Client) iprev {
	if !c.Addr.IsValid() {
		return iprev{}
	}
	name, err := peer.Name(ctx, r, &c, nil)
	switch err {
	case nil:
		return iprev{"pass", name}
	case peer.ErrNoName:
		return iprev{value: "permerror"}
	case peer.ErrNotBack:
		return iprev{value: "fail"}
	}
	return iprev{value: "temperror"}
}

func (f *facts) iprevResult() authres.Result {
	r := authres.Result{Method: "iprev", Value: f.iprev.value, Comment: f.iprev.name}
	switch r.Value {
	case "fail":
		r.Comment = peer.ErrNotBack.Error()
	case "permerror":
		r.Comment = peer.ErrNoName.Error()
	}
	r.Add("policy", "iprev", f.client.Addr.Unmap().String())
	return r
}
