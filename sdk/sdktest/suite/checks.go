package suite

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
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
	note := strings.TrimSpace(m.Name+" "+m.Version) + ": " + strings.Join(r.kinds, ", ")
	asked := []string{proto.InterfaceFilter, proto.InterfaceGate, proto.InterfacePlanner, proto.InterfaceMailbox, proto.InterfaceDirectory,
		proto.InterfaceObserver, proto.InterfaceService}
	for _, kind := range r.kinds {
		if !slices.Contains(asked, kind) {
			note += "; what it does as " + clip(kind) + " is not checked"
		}
	}
	return note, nil
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

// modest looks at what the plugin asked the gateway for, in all calls so far.
func (r *run) modest(context.Context) (string, error) {
	if r.faults == nil && r.proc != nil {
		r.faults = r.proc.host.complaint()
	}
	return "", r.faults
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
