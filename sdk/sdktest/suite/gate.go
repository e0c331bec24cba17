package suite

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/wire"
)

// An attempt is something that a gate has to have an answer to.
type attempt struct {
	name string
	a    *sdk.Attempt
}

// attempts are what clients do at the stages that the manifest names.
func attempts(stages sdk.Stage, origin mail.Origin) []attempt {
	session := func(change func(*sdk.Attempt)) *sdk.Attempt {
		a := &sdk.Attempt{Envelope: mail.Envelope{Origin: origin, Client: mail.Client{
			Addr: netip.MustParseAddr("192.0.2.7"), Port: 40000, Protocol: "SMTP", Listener: "127.0.0.1:25"}}}
		change(a)
		return a
	}
	at := func(stage sdk.Stage, change func(*sdk.Attempt)) *sdk.Attempt {
		return session(func(a *sdk.Attempt) {
			a.Stage = stage
			if stage > sdk.AtConnect {
				a.Envelope.Client.Helo, a.Envelope.Client.Protocol = "mail.example.com", "ESMTP"
			}
			if stage > sdk.AtHelo {
				a.Envelope.ReversePath = mail.MustPath("alice@example.com")
			}
			if stage == sdk.AtRcpt {
				a.Recipient = mail.MustPath("bob@example.org")
			}
			change(a)
		})
	}
	as := func(*sdk.Attempt) {}
	all := []attempt{
		{"connect", at(sdk.AtConnect, as)},
		{"connect from IPv6", at(sdk.AtConnect, func(a *sdk.Attempt) { a.Envelope.Client.Addr = netip.MustParseAddr("2001:db8::7") })},
		{"connect from nowhere", at(sdk.AtConnect, func(a *sdk.Attempt) { a.Envelope.Client = mail.Client{} })},
		{"HELO", at(sdk.AtHelo, as)},
		{"HELO with an address literal", at(sdk.AtHelo, func(a *sdk.Attempt) { a.Envelope.Client.Helo = "[IPv6:2001:db8::7]" })},
		{"HELO with nonsense", at(sdk.AtHelo, func(a *sdk.Attempt) { a.Envelope.Client.Helo = "\u00e9 \ufffd" + strings.Repeat("x", 400) })},
		{"MAIL", at(sdk.AtMail, func(a *sdk.Attempt) { a.Size = 25 << 20 })},
		{"MAIL with the null reverse-path", at(sdk.AtMail, func(a *sdk.Attempt) { a.Envelope.ReversePath = mail.Path{} })},
		{"RCPT", at(sdk.AtRcpt, as)},
		{"RCPT of postmaster", at(sdk.AtRcpt, func(a *sdk.Attempt) { a.Recipient = mail.Path{Local: "postmaster"} })},
		{"RCPT after 999 others", at(sdk.AtRcpt, func(a *sdk.Attempt) {
			a.Accepted = 999
			a.Envelope.Notes = map[string]string{"other/spf": "fail"}
		})},
	}
	var asked []attempt
	for _, a := range all {
		if a.a.Stage&stages != 0 {
			asked = append(asked, a)
		}
	}
	return asked
}

// gate asks about every attempt, and about many at once.
func (r *run) gate(ctx context.Context) {
	all := attempts(r.desc.Manifest.Stages, r.origin())
	for hung, i := 0, 0; i < len(all) && hung < 2; i++ {
		r.check(ctx, "gate: "+all[i].name, func(ctx context.Context) (string, error) {
			p, err := r.live(ctx)
			if err != nil {
				return "", err
			}
			v, err := r.judge(ctx, p, all[i].a)
			if isDeadline(err) {
				hung++
			}
			if err != nil {
				return "", err
			}
			return describe(v), nil
		})
	}
	r.check(ctx, "gate: 32 calls at once", func(ctx context.Context) (string, error) {
		p, err := r.live(ctx)
		if err != nil {
			return "", err
		}
		errs := make(chan error, 32)
		var calls sync.WaitGroup
		for i := range 32 {
			calls.Go(func() {
				if _, err := r.judge(ctx, p, all[i%len(all)].a); err != nil {
					errs <- err
				}
			})
		}
		calls.Wait()
		close(errs)
		return "", <-errs
	})
}

// judge asks the gate, and holds its verdict against contract and manifest.
func (r *run) judge(ctx context.Context, p *process, a *sdk.Attempt) (*sdk.Verdict, error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	pv, err := p.calls.gate.Gate(ctx, wire.GateRequest(a))
	if err != nil {
		return nil, callError("Gate", err)
	}
	v, err := wire.GateVerdict(pv, r.desc.Manifest)
	if err != nil {
		return nil, fmt.Errorf("the verdict breaks the contract: %w", err)
	}
	return v, nil
}
