package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Program is a plugin to be checked.
type Program struct {
	Path string
	Args []string
	// Settings, as TOML, with which it should work.
	Settings []byte
	// Timeout of one call; 10 seconds where it is 0.
	Timeout time.Duration
}

// Result is the outcome of one check.
type Result struct {
	Name string
	// Err says what is wrong; nil: nothing.
	Err error
	// Note is worth knowing, and nothing is wrong with it.
	Note string
	Took time.Duration
}

// Run makes all checks, one after the other, and reports each as it is done. It returns
// true when nothing is wrong. Checks that make no sense after a failure are not made, and
// none when ctx has ended.
func Run(ctx context.Context, p Program, report func(Result)) bool {
	if p.Timeout == 0 {
		p.Timeout = 10 * time.Second
	}
	r := &run{program: p, report: report, ok: true}
	defer r.end()
	dir, err := os.MkdirTemp("", "sdktest")
	if err != nil {
		r.check(ctx, "temporary folder", func(context.Context) (string, error) { return "", err })
		return false
	}
	defer os.RemoveAll(dir)
	r.dir = dir
	r.all(ctx)
	return r.ok
}

// A run is one run of the suite.
type run struct {
	program Program
	report  func(Result)
	dir     string // temporary
	ok      bool
	desc    wire.Description
	kinds   []string // the interfaces that it says it has
	faults  error    // what a process that has ended must not have asked the gateway for
	proc    *process // the one under test at the moment; nil: none
}

func (r *run) all(ctx context.Context) {
	if !r.check(ctx, "starts and shakes hands", r.handshake) || !r.check(ctx, "says what it is", r.describe) {
		return
	}
	r.check(ctx, "refuses an unknown setting", r.unknownSetting)
	r.check(ctx, "answers to having no settings", r.noSettings)
	if !r.check(ctx, "takes its settings", r.takesSettings) {
		return
	}
	r.check(ctx, "is healthy", r.healthy)
	r.check(ctx, "standard health service", r.standardHealth)
	if r.desc.Gate {
		r.gate(ctx)
	}
	if r.desc.Filter {
		r.filter(ctx)
	}
	if r.desc.Stream {
		r.check(ctx, "stream: one answer to each call", r.answersOnce)
	}
	if r.desc.Planner {
		r.plan(ctx)
	}
	if r.desc.Mailbox {
		r.check(ctx, "delivers, and once only", r.deliver)
	}
	if r.desc.Folders {
		r.check(ctx, "lists its folders", r.folders)
	}
	if r.desc.Directory {
		r.directory(ctx)
	}
	if r.desc.Observer {
		r.observe(ctx)
	}
	if r.desc.Service {
		r.service(ctx)
	}
	r.check(ctx, "asks the gateway only for what its manifest declares", r.modest)
	r.check(ctx, "runs twice at once", r.twice)
	r.check(ctx, "drains", r.drain)
	r.check(ctx, "ends when the gateway is dead", r.ends)
	r.check(ctx, "prints nothing but the handshake", r.silent)
}

// check makes one check and reports it. It returns false when something is wrong.
func (r *run) check(ctx context.Context, name string, do func(context.Context) (string, error)) bool {
	if ctx.Err() != nil {
		r.ok = false
		return false
	}
	begun := time.Now()
	note, err := do(ctx)
	if err != nil && r.proc != nil && r.proc.conn != nil {
		select { // a death is the better explanation, and may show a moment later
		case <-r.proc.dead:
			err = fmt.Errorf("%w\nthe process ended: %s", err, r.proc.words())
		case <-time.After(50 * time.Millisecond):
		}
	}
	if isDeadline(err) {
		r.end() // who hangs once is not waited for again
	}
	r.ok = r.ok && err == nil
	r.report(Result{Name: name, Err: err, Note: note, Took: time.Since(begun)})
	return err == nil && ctx.Err() == nil
}

func (r *run) end() {
	if r.proc != nil {
		r.faults = cmp.Or(r.faults, r.proc.host.complaint())
		r.proc.end()
		r.proc = nil
	}
}

// fresh ends the process at hand and starts another, not configured.
func (r *run) fresh(ctx context.Context, handed ...listener) (*process, error) {
	r.end()
	p, err := start(ctx, r.program, r.dir, handed...)
	r.proc = p
	return p, err
}

// live returns a configured process: the one at hand, or a new one where that has died.
func (r *run) live(ctx context.Context) (*process, error) {
	if r.proc != nil && !r.proc.isDead() {
		return r.proc, nil
	}
	p, err := r.fresh(ctx)
	if err != nil {
		return nil, err
	}
	return p, r.begin(ctx, p)
}

// begin describes and configures a process as the gateway does.
func (r *run) begin(ctx context.Context, p *process) error {
	d, err := r.ask(ctx, p)
	if err != nil {
		return err
	}
	said, err := r.configure(ctx, p, r.program.Settings)
	switch {
	case err != nil:
		return err
	case said != "":
		return fmt.Errorf("it does not take its settings: %s", clip(said))
	}
	return r.openCalls(p, d.Stream)
}

func (r *run) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.program.Timeout)
}

func (r *run) ask(ctx context.Context, p *process) (wire.Description, error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	m, err := proto.NewPluginClient(p.conn).Describe(ctx, &proto.DescribeRequest{HostVersion: "sdktest"})
	if err != nil {
		return wire.Description{}, callError("Describe", err)
	}
	d, err := wire.Describe(m)
	p.host.allow(d.Manifest.Host)
	r.kinds = m.GetInterfaces()
	return d, err
}

func (r *run) configure(ctx context.Context, p *process, settings []byte) (string, error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	a, err := proto.NewPluginClient(p.conn).Configure(ctx, wire.ConfigureRequest(sdk.Config{
		Settings:   settings,
		Hostname:   "mx.example.org",
		Postmaster: "postmaster@example.org",
		DataDir:    r.dir,
	}))
	if err != nil {
		return "", callError("Configure", err)
	}
	if a.GetError() == "" {
		d := r.desc
		if err := d.Configured(a); err != nil {
			return "", fmt.Errorf("%s: %w", "Configure", err)
		}
	}
	return a.GetError(), nil
}

var errDeadline = errors.New("no answer before the deadline")

func isDeadline(err error) bool { return errors.Is(err, errDeadline) }

// callError puts a gRPC error into words.
func callError(method string, err error) error {
	st := status.Convert(err)
	switch st.Code() {
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", method, errDeadline)
	case codes.Unimplemented:
		return fmt.Errorf("%s: it does not serve this call: %s", method, clip(st.Message()))
	case codes.Unavailable:
		return fmt.Errorf("%s: the connection broke: %s", method, clip(st.Message()))
	}
	text := fmt.Sprintf("%s: it answered with an error, %s: %s", method, st.Code(), clip(st.Message()))
	for _, d := range st.Details() {
		if f, ok := d.(*proto.Failure); ok {
			text += "\n" + strings.TrimSpace(printable(f.GetStack()))
		}
	}
	return errors.New(text)
}
