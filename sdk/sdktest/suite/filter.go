package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/internal/draft"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/wire"
)

// filter asks about every message of the corpus, and about many at once.
func (r *run) filter(ctx context.Context) {
	all, err := corpus(r.dir, r.origin())
	if err != nil {
		r.check(ctx, "filter", func(context.Context) (string, error) { return "", err })
		return
	}
	for hung, i := 0, 0; i < len(all) && hung < 2; i++ {
		r.check(ctx, "filter: "+all[i].name, func(ctx context.Context) (string, error) {
			p, err := r.live(ctx)
			if err != nil {
				return "", err
			}
			v, err := r.verdict(ctx, p, all[i].m)
			if isDeadline(err) {
				hung++
			}
			if err != nil {
				return "", err
			}
			return describe(v), nil
		})
	}
	r.check(ctx, "filter: callers that give up", func(ctx context.Context) (string, error) { return r.impatient(ctx, all) })
	r.check(ctx, "filter: 32 calls at once", func(ctx context.Context) (string, error) { return r.concurrent(ctx, all) })
}

// verdict asks for one, and holds it against contract and manifest as the gateway does.
func (r *run) verdict(ctx context.Context, p *process, m *mail.Message) (*sdk.Verdict, error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	return r.filtered(ctx, p, m)
}

// filtered is verdict without a deadline of its own.
func (r *run) filtered(ctx context.Context, p *process, m *mail.Message) (*sdk.Verdict, error) {
	req, err := wire.FilterRequest(m, r.desc.Manifest.Needs)
	if err != nil {
		return nil, err
	}
	if r.desc.Manifest.May&sdk.MayReplaceBody != 0 {
		f, err := os.CreateTemp(r.dir, "draft")
		if err != nil {
			return nil, err
		}
		defer os.Remove(f.Name())
		f.Close()
		req.Draft = f.Name()
	}
	pv, err := p.calls.filter.Filter(ctx, req)
	if err != nil {
		return nil, callError("Filter", err)
	}
	v, err := wire.VerdictDraft(pv, r.desc.Manifest, &m.Envelope, req.Draft)
	if err != nil {
		return nil, fmt.Errorf("the verdict breaks the contract: %w", err)
	}
	return v, newBody(v)
}

// newBody checks the body that a verdict puts in the place of the message's.
func newBody(v *sdk.Verdict) error {
	for _, e := range v.Edits {
		if e.BodyDraft == "" {
			continue
		}
		b, err := os.ReadFile(e.BodyDraft)
		if err != nil {
			return err
		}
		if !draft.WireForm(b) {
			return errors.New("the new body breaks the contract: it has a bare CR, a bare LF or a NUL")
		}
	}
	return nil
}

// describe is a verdict in a word.
func describe(v *sdk.Verdict) string {
	text := v.Action.String()
	switch {
	case v.Status.Code != 0:
		text += ": " + v.Status.Error()
	case v.Reason != "":
		text += ": " + v.Reason
	}
	if n := len(v.Edits); n > 0 {
		text += fmt.Sprintf(", edits: %d", n)
	}
	if n := len(v.PerRecipient); n > 0 {
		text += fmt.Sprintf(", recipients with a verdict of their own: %d", n)
	}
	return text
}

// impatient makes calls that nobody waits for. The plugin has to get over it.
func (r *run) impatient(ctx context.Context, all []sample) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	var calls sync.WaitGroup
	for i := range 100 {
		s := all[i%len(all)]
		req, err := wire.FilterRequest(s.m, r.desc.Manifest.Needs)
		if err != nil {
			return "", err
		}
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(i%10)*200*time.Microsecond)
			defer cancel()
			p.calls.filter.Filter(ctx, req)
		})
	}
	calls.Wait()
	if err := r.health(ctx, p); err != nil {
		return "", fmt.Errorf("after 100 calls that ended by their deadline: %w", err)
	}
	if _, err := r.verdict(ctx, p, all[0].m); err != nil {
		return "", fmt.Errorf("after 100 calls that ended by their deadline: %w", err)
	}
	return "", nil
}

// concurrent keeps 32 calls in flight, and asks for a sign of life meanwhile. A slow machine, or an engine
// that is asked about each field, is no hang: light samples are taken, and four calls in a row have the
// time of four together.
func (r *run) concurrent(ctx context.Context, all []sample) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	const rounds = 4
	all = slices.DeleteFunc(slices.Clone(all), sample.heavy)
	within, cancel := context.WithTimeout(ctx, rounds*r.program.Timeout)
	defer cancel()
	errs := make(chan error, 33)
	var calls sync.WaitGroup
	for i := range 32 {
		calls.Go(func() {
			for k := range rounds {
				if _, err := r.filtered(within, p, all[(i+k*7)%len(all)].m); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	calls.Go(func() {
		if err := r.health(ctx, p); err != nil {
			errs <- fmt.Errorf("during 32 calls: %w", err)
		}
	})
	calls.Wait()
	close(errs)
	return "", <-errs
}
