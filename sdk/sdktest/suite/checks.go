package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/internal/draft"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

func (r *run) handshake(ctx context.Context) (string, error) {
	_, err := r.fresh(ctx)
	return "", err
}

func (r *run) describe(ctx context.Context) (string, error) {
	first, err := r.ask(ctx, r.proc)
	if err != nil {
		return "", err
	}
	again, err := r.ask(ctx, r.proc)
	if err != nil {
		return "", fmt.Errorf("the second time: %w", err)
	}
	if !reflect.DeepEqual(first, again) {
		return "", fmt.Errorf("it says something else the second time: %+v, and before %+v", again, first)
	}
	r.desc = first
	m := first.Manifest
	return strings.TrimSpace(m.Name + " " + m.Version), nil
}

const unknownKey = "sdktest_no_such_setting"

func (r *run) unknownSetting(ctx context.Context) (string, error) {
	settings := append([]byte(unknownKey+" = 1\n"), r.program.Settings...)
	said, err := r.configure(ctx, r.proc, settings)
	switch {
	case err != nil:
		return "", fmt.Errorf("settings are refused by the field error of the answer: %w", err)
	case said == "":
		return "", fmt.Errorf("it took the setting %s, which it cannot know: an admin's slip would go unnoticed", unknownKey)
	case !strings.Contains(said, unknownKey):
		return "", fmt.Errorf("it does not name the setting that it refuses: %q", clip(said))
	}
	return "", isLine(said)
}

func (r *run) noSettings(ctx context.Context) (string, error) {
	p, err := r.fresh(ctx)
	if err != nil {
		return "", err
	}
	if _, err := r.ask(ctx, p); err != nil {
		return "", err
	}
	said, err := r.configure(ctx, p, nil)
	if err != nil {
		return "", err
	}
	if said != "" {
		return "it says: " + clip(said), isLine(said)
	}
	return "", nil
}

func isLine(s string) error {
	if strings.ContainsAny(s, "\r\n") || printable(s) != s {
		return fmt.Errorf("its answer is not one line of text: %q", clip(s))
	}
	return nil
}

func (r *run) takesSettings(ctx context.Context) (string, error) {
	p, err := r.fresh(ctx)
	if err != nil {
		return "", err
	}
	return "", r.begin(ctx, p)
}

func (r *run) healthy(ctx context.Context) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	return "", r.health(ctx, p)
}

// health must be answered as fast as the gateway wants it.
func (r *run) health(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, min(5*time.Second, r.program.Timeout))
	defer cancel()
	if _, err := proto.NewPluginClient(p.conn).Health(ctx, &proto.HealthRequest{}); err != nil {
		return callError("Health", err)
	}
	return nil
}

func (r *run) standardHealth(ctx context.Context) (string, error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	a, err := grpc_health_v1.NewHealthClient(r.proc.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "plugin"})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return `not served; tools that know go-plugin ask grpc.health.v1.Health for "plugin"`, nil
	case err != nil:
		return "", callError("grpc.health.v1.Health/Check", err)
	case a.Status != grpc_health_v1.HealthCheckResponse_SERVING:
		return "", fmt.Errorf("grpc.health.v1.Health says %s", a.Status)
	}
	return "", nil
}

func (r *run) origin() mail.Origin {
	if o := r.desc.Manifest.Origins; len(o) > 0 {
		return o[0]
	}
	return mail.Incoming
}

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
	pv, err := proto.NewFilterClient(p.conn).Filter(ctx, req)
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
		if e.Kind != sdk.BodyReplace {
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

// modest looks at what the plugin asked the gateway for, in all calls so far.
func (r *run) modest(context.Context) (string, error) {
	if r.faults == nil && r.proc != nil {
		r.faults = r.proc.host.complaint()
	}
	return "", r.faults
}

// plan asks for plans for messages of all kinds, each for one recipient.
func (r *run) plan(ctx context.Context) {
	all, err := corpus(r.dir, r.origin())
	if err != nil {
		r.check(ctx, "planner", func(context.Context) (string, error) { return "", err })
		return
	}
	for hung, i := 0, 0; i < len(all) && hung < 2; i++ {
		m := *all[i].m
		m.Envelope.Recipients = m.Envelope.Recipients[:1]
		r.check(ctx, "planner: "+all[i].name, func(ctx context.Context) (string, error) {
			p, err := r.live(ctx)
			if err != nil {
				return "", err
			}
			ctx, cancel := r.limited(ctx)
			defer cancel()
			req, err := wire.PlanRequest(&m, r.desc.Manifest.Needs)
			if err != nil {
				return "", err
			}
			answer, err := proto.NewPlannerClient(p.conn).Plan(ctx, req)
			if err != nil {
				err = callError("Plan", err)
				if isDeadline(err) {
					hung++
				}
				return "", err
			}
			plan, err := wire.Plan(answer, r.desc.Manifest)
			if err != nil {
				return "", fmt.Errorf("the plan breaks the contract: %w", err)
			}
			return fmt.Sprintf("actions: %d", len(plan.Actions)), nil
		})
	}
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
			proto.NewFilterClient(p.conn).Filter(ctx, req)
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

// concurrent keeps 32 calls in flight, and asks for a sign of life meanwhile.
func (r *run) concurrent(ctx context.Context, all []sample) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	errs := make(chan error, 33)
	var calls sync.WaitGroup
	for i := range 32 {
		calls.Go(func() {
			for k := range 4 {
				if _, err := r.verdict(ctx, p, all[(i+k*7)%len(all)].m); err != nil {
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

// deliver stores a message, and the same once more.
func (r *run) deliver(ctx context.Context) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	d := &sdk.Delivery{
		Key:       "0c1f3k9w2m4xq.0",
		Recipient: mail.MustPath("bob@example.org"),
		Message:   message(mail.Incoming, "From: alice@example.com\r\nSubject: lunch\r\n\r\n", []byte("Shall we?\r\n")),
	}
	first, err := r.deliverOnce(ctx, p, d)
	if err != nil {
		return "", err
	}
	again, err := r.deliverOnce(ctx, p, d)
	if err != nil {
		return "", fmt.Errorf("the same key again: %w", err)
	}
	if (first == nil) != (again == nil) {
		return "", fmt.Errorf("the same key again: the answer is %v, and was %v", answer(again), answer(first))
	}
	return answer(first), nil
}

func answer(err error) string {
	if err == nil {
		return "stored"
	}
	return err.Error()
}

// deliverOnce returns the plugin's word, and an error when it has none.
func (r *run) deliverOnce(ctx context.Context, p *process, d *sdk.Delivery) (word, err error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	req, err := wire.DeliverRequest(d)
	if err != nil {
		return nil, err
	}
	a, err := proto.NewMailboxClient(p.conn).Deliver(ctx, req)
	if err != nil {
		return nil, callError("Deliver", err)
	}
	word, ok := wire.Delivered(a)
	if !ok {
		return nil, fmt.Errorf("the answer breaks the contract: %w", word)
	}
	return word, nil
}

// twice starts a second process beside the first, as the gateway does to change settings.
func (r *run) twice(ctx context.Context) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	second, err := start(ctx, r.program, r.dir)
	if second != nil {
		defer second.end()
	}
	if err == nil {
		err = r.begin(ctx, second)
	}
	if err == nil {
		err = r.health(ctx, second)
	}
	if err != nil {
		return "", fmt.Errorf("a second process beside the first: %w", err)
	}
	if err := r.health(ctx, p); err != nil {
		return "", fmt.Errorf("the first, beside a second: %w", err)
	}
	return "", nil
}

func (r *run) drain(ctx context.Context) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*r.program.Timeout)
	defer cancel()
	if _, err := proto.NewPluginClient(p.conn).Drain(ctx, &proto.DrainRequest{}); err != nil {
		return "", callError("Drain", err)
	}
	return "", nil
}

func (r *run) ends(ctx context.Context) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	took, err := p.abandon(min(endLimit, r.program.Timeout))
	if err != nil {
		return "", err
	}
	return "after " + took.Round(time.Millisecond).String(), nil
}

// silent looks at the output of the process that lived longest.
func (r *run) silent(context.Context) (string, error) {
	if r.proc == nil {
		return "", errors.New("there is no process")
	}
	if said := r.proc.stdout.String(); said != "" {
		return "", fmt.Errorf("standard output belongs to the protocol, but it printed %q", clip(said))
	}
	return "", nil
}
