package dmarcreport

import (
	"context"
	"errors"
	"net"
	"slices"

	"github.com/postern-mail/postern/plugins/internal/dmarc"
	"github.com/postern-mail/postern/sdk/mail"
)

// Destinations are the addresses that get the report: those in the domain's own
// organization, and those elsewhere that say in the DNS that they want it (RFC 9990, Verifying External Destinations). An
// error says that it could not be found out for some; the others are returned.
func Destinations(ctx context.Context, r dmarc.Resolver, policy mail.Domain, wanted []mail.Path) ([]mail.Path, error) {
	walks := dmarc.New(r)
	var out []mail.Path
	var errs []error
	for _, to := range wanted {
		own, err := walks.Aligned(ctx, policy, to.Domain, false)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		agreed := []mail.Path{to}
		if !own {
			if agreed, err = elsewhere(ctx, r, policy, to); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		for _, p := range agreed {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out, errors.Join(errs...)
}

// elsewhere asks the host of an address whether it wants reports about a domain, and where
// it wants them.
func elsewhere(ctx context.Context, r dmarc.Resolver, policy mail.Domain, to mail.Path) ([]mail.Path, error) {
	name := policy.String() + "._report._dmarc." + to.Domain.String()
	if len(name) > 253 {
		return nil, nil
	}
	txts, err := r.LookupTXT(ctx, name)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	agreed := false
	for _, t := range txts {
		rec, ok := dmarc.Parse(t)
		if !ok {
			continue
		}
		agreed = true
		if len(rec.Reports) == 0 {
			continue
		}
		for _, p := range rec.Reports {
			if p.Domain != to.Domain { // it sends us on: to nobody
				return nil, nil
			}
		}
		return rec.Reports, nil
	}
	if !agreed {
		return nil, nil
	}
	return []mail.Path{to}, nil
}
