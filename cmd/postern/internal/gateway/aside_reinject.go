package gateway

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/postern-mail/postern/core/pluginhost/hostservice"
	"github.com/postern-mail/postern/core/reinject"
	"github.com/postern-mail/postern/core/smtpd"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/sdk/mail"
)

// takeBack opens the listeners of role reinjection, so that outside content filters can be
// tried too. Beside a gateway that runs they are taken: what a filter brings back would come
// there, where nobody waits for it.
func (a *Aside) takeBack(content *spool.Spool) hostservice.Reinjections {
	c := a.config
	desk := reinject.New(reinject.Options{Spool: content, Log: a.log}, reinjectLimits(c))
	for _, l := range c.Listeners {
		if smtpd.Role(l.Role) != smtpd.Reinjection {
			continue
		}
		o := smtpd.Options{Hostname: c.Hostname.String(), Name: l.Address, Role: smtpd.Reinjection, TLS: smtpd.TLSMode(l.TLS), TLSConfig: a.certs.Config(), Clients: c.Prefixes(l.Clients), Log: a.log}
		reinjecting(&o, desk, c)
		s, err := smtpd.New(o)
		if err != nil {
			return taken{err}
		}
		socket, err := net.Listen(l.Network())
		if err != nil {
			return taken{err}
		}
		a.backs = append(a.backs, s)
		go s.Serve(socket)
	}
	return waits{desk}
}

// closeBacks ends what takeBack began.
func (a *Aside) closeBacks() {
	ending, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, s := range a.backs {
		s.Shutdown(ending)
	}
}

// taken says why nothing can come back.
type taken struct{ why error }

// Await fails.
func (n taken) Await(string, []mail.Path) (hostservice.Awaited, error) {
	return nil, errors.New("what a content filter brings back cannot be taken here, perhaps because a gateway runs: " + n.why.Error())
}
