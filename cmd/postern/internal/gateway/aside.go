package gateway

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/core/callahead"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/policy"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/smtpd"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/core/tlsconf"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// AsideOptions say what to put together aside.
type AsideOptions struct {
	Config  *config.Config // with the stored domains
	DataDir string         // its own, with the directory that it uses
	Plugins []pluginhost.Spec
	Log     *slog.Logger
	Filters pipeline.Witness // is told what filters answer
	// Gate may put something around a gate.
	Gate func(name string, g pipeline.Gate) pipeline.Gate
}

// Aside is a gateway from the listener's session to the door of the queue, with nothing behind
// that door. The parts are the gateway's own; what they keep is in a directory of its own, so
// that it may stand beside a gateway that runs.
type Aside struct {
	config    *config.Config
	log       *slog.Logger
	directory *directory.Directory
	behind    *callahead.Remembered
	host      *pluginhost.Host
	certs     *tlsconf.Server
	policy    currentPolicy
	gates     currentGates
	names     currentNames
	rules     intake.Rules
	door      door
	backs     []*smtpd.Server // of role reinjection
}

// OpenAside starts the plugins.
func OpenAside(ctx context.Context, o AsideOptions) (*Aside, error) {
	a := &Aside{config: o.Config, log: o.Log}
	if err := a.open(ctx, o); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func (a *Aside) open(ctx context.Context, o AsideOptions) error {
	own := *o.Config
	own.DataDir = o.DataDir
	var err error
	if a.directory, err = directory.Open(directory.Options{Path: directoryFile(&own), Hostname: own.Hostname, Postmaster: own.Postmaster}); err != nil {
		return err
	}
	a.directory.Declare(Declared(&own), own.Postmaster)
	if a.certs, err = tlsconf.Load(tlsconf.Options{DataDir: own.DataDir, Hostname: own.Hostname.String()}); err != nil {
		return err
	}
	content, err := spool.Open(spool.Options{Dir: contentDir(&own), Log: a.log})
	if err != nil {
		return err
	}
	plugins := hostOptions(&own, filepath.Join(own.DataDir, "run"), a.log)
	plugins.DraftDir, plugins.ContentGroup = draftDir(&own), contentGroup(&own)
	plugins.Idle = true
	services := newAsideServices(a)
	plugins.Services = services.forPlugins()
	plugins.Services.Reinjections = a.takeBack(content)
	if a.host, err = pluginhost.Start(ctx, plugins, o.Plugins); err != nil {
		return err
	}
	dirs := newDirectories(a.config, a.directory, a.host)
	if err := services.attach(dirs); err != nil {
		return err
	}
	return a.assemble(o, content, dirs)
}

// assemble puts the message's way together, as the gateway does.
func (a *Aside) assemble(o AsideOptions, content *spool.Spool, dirs *directories) error {
	c := a.config
	table, err := routes(c, nil)
	if err != nil {
		return err
	}
	if a.behind, err = callahead.Remember(recipientsFile(c), callaheadRules(c, table), time.Now); err != nil {
		return err
	}
	p := policyOptions(c, dirs, a.behind, nil, a.log)
	dirs.extend(&p)
	sending, err := newSendingOn(c, a.directory)
	if err != nil {
		return err
	}
	p.Returned = sending.returned
	unhurried(&p.Limits)
	for i := range p.Networks {
		unhurried(&p.Networks[i].Limits)
	}
	rules, err := policy.New(p)
	if err != nil {
		return err
	}
	a.policy.Store(rules)
	gates := gateSteps(c, a.host)
	for i := range gates {
		gates[i].Gate = o.Gate(gates[i].Name, gates[i].Gate)
	}
	a.gates.Store(pipeline.NewGates(gates, nil, a.log))
	filters := pipeline.Options{Trace: untraced{}, Clock: time.Now, Witness: o.Filters, Allowed: allowance(c, a.directory, a.log)}
	filters.Steps, filters.Timeout = steps(c, a.host), messageTime
	a.rules = intakeRules(c, pipeline.New(filters), dirs, table)
	sending.extend(&a.rules)
	a.rules.Author = rules.Author
	r, err := newResolver(c, a.log)
	if err != nil {
		return err
	}
	a.names.Store(newNames(c, r))
	a.door.names = &a.names
	a.door.intake = intake.New(intake.Options{Hostname: c.Hostname.String(), Postmaster: c.Postmaster, IDs: &queue.IDs{}, Spool: content, Store: nowhere{},
		Backoff: backoff(c), Trace: untraced{}, Log: a.log, Clock: time.Now}, a.rules)
	return nil
}

// unhurried takes away the limits by time: who tries many messages is not many clients.
func unhurried(l *policy.Limits) { l.MessagesPerMinute, l.RecipientsPerHour = 0, 0 }

// Close ends the plugins.
func (a *Aside) Close() {
	if a.host != nil {
		ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		a.host.Close(ending)
		cancel()
	}
	a.closeBacks()
	if a.behind != nil {
		a.behind.Close()
	}
	if a.directory != nil {
		a.directory.Close()
	}
}

// Plugins are the running plugins.
func (a *Aside) Plugins() *pluginhost.Host { return a.host }

// NextHop says where mail for a recipient would go.
func (a *Aside) NextHop(to mail.Path) string { return a.rules.Destination(to) }

// Server is that of the first listener of a role, with TLS from the first byte where
// somebody logs in, for passwords are not taken without.
func (a *Aside) Server(login bool, recipients int) (*smtpd.Server, error) {
	c := a.config
	role := smtpd.MX
	if login {
		role = smtpd.Submission
	}
	o := smtpd.Options{Hostname: c.Hostname.String(), Role: role, Name: "try", Policy: &guard{&a.policy, &a.gates, &a.names, role == smtpd.Submission},
		Intake: &a.door, Log: a.log, Limits: smtpd.Limits{MessageSize: int64(c.Limits.MessageSize), Recipients: c.Limits.Recipients, Errors: recipients + 10}}
	for _, l := range c.Listeners {
		if smtpd.Role(l.Role) == role {
			o.Name = l.Address
			break
		}
	}
	if login {
		o.TLS, o.TLSConfig, o.Auth, o.Authenticator = smtpd.TLSImplicit, a.certs.Config(), smtpd.AuthOptional, loggedIn{}
	}
	return smtpd.New(o)
}

// untraced takes what a trial has no use for.
type untraced struct{}

// Record does nothing.
func (untraced) Record(trace.Event) {}

// nowhere is a queue that keeps nothing.
type nowhere struct{ queue.Store }

// Commit does nothing.
func (nowhere) Commit(context.Context, queue.Batch) error { return nil }

// loggedIn believes whoever says who he is: the caller of a trial does.
type loggedIn struct{}

// Mechanisms are those of a trial.
func (loggedIn) Mechanisms() []string { return []string{"PLAIN"} }

// Authenticate is content.
func (loggedIn) Authenticate(_ context.Context, _ *mail.Client, _, username, _ string) (string, error) {
	return username, nil
}
