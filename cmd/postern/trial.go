package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
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
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// trial is the gateway from the listener's session to the door of the queue, with nothing
// behind that door. The parts are the gateway's own; what they keep is in a folder that goes
// with the trial. One message at a time.
type trial struct {
	config    *config.Config
	dir       string
	log       *slog.Logger
	directory *directory.Directory
	behind    *callahead.Remembered
	host      *pluginhost.Host
	certs     *tlsconf.Server
	policy    currentPolicy
	gates     currentGates
	rules     intake.Rules
	intake    *intake.Intake
	backs     []*smtpd.Server // of role reinjection

	mu     sync.Mutex
	report *report         // of the message under way
	fallen map[string]bool // plugins that it has killed
}

// newTrial starts the plugins.
func newTrial(ctx context.Context, c *config.Config) (*trial, error) {
	if err := becomeOwner(c.DataDir); err != nil { // plugins run as they do in the gateway
		return nil, err
	}
	c, err := readStored(ctx, c)
	if err != nil {
		return nil, err
	}
	specs, err := pluginSpecs(c)
	if err != nil {
		return nil, err
	}
	t := &trial{config: c, log: quietLog(c)}
	if t.dir, err = os.MkdirTemp("", "postern-try"); err != nil {
		return nil, err
	}
	if err := t.open(ctx, specs); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *trial) open(ctx context.Context, specs []pluginhost.Spec) error {
	c := t.config
	if err := os.Chmod(t.dir, 0o710); err != nil { // as a data directory is
		return err
	}
	err := directory.Copy(ctx, directoryFile(c), filepath.Join(t.dir, "directory.db"))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // without one nobody is in it
		return err
	}
	if err := (&dataCopy{}).tree(c.DataDir, t.dir, 0); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if err := moveFiles(specs, c.DataDir, t.dir); err != nil {
		return err
	}
	own := *c
	own.DataDir = t.dir
	if t.directory, err = directory.Open(directory.Options{Path: directoryFile(&own), Hostname: c.Hostname, Postmaster: c.Postmaster}); err != nil {
		return err
	}
	t.directory.Declare(declared(c), c.Postmaster)
	if t.certs, err = tlsconf.Load(tlsconf.Options{DataDir: t.dir, Hostname: c.Hostname.String()}); err != nil {
		return err
	}
	content, err := spool.Open(spool.Options{Dir: contentDir(&own), Log: t.log})
	if err != nil {
		return err
	}
	plugins := hostOptions(&own, filepath.Join(t.dir, "run"), t.log)
	plugins.DraftDir, plugins.ContentGroup = draftDir(&own), contentGroup(&own)
	plugins.Idle = true
	services := newTrialServices(t)
	plugins.Services = services.forPlugins()
	plugins.Services.Reinjections = t.takeBack(content)
	if t.host, err = pluginhost.Start(ctx, plugins, specs); err != nil {
		return err
	}
	dirs := newDirectories(c, t.directory, t.host)
	if err := services.attach(dirs); err != nil {
		return err
	}
	return t.assemble(content, dirs)
}

// assemble puts the message's way together, as the gateway does.
func (t *trial) assemble(content *spool.Spool, dirs *directories) error {
	c := t.config
	table, err := routes(c, nil)
	if err != nil {
		return err
	}
	if t.behind, err = callahead.Remember(recipientsFile(c), callaheadRules(c, table), time.Now); err != nil {
		return err
	}
	o := policyOptions(c, dirs, t.behind, nil, t.log)
	dirs.extend(&o)
	sending, err := newSendingOn(c, t.directory)
	if err != nil {
		return err
	}
	o.Returned = sending.returned
	unhurried(&o.Limits)
	for i := range o.Networks {
		unhurried(&o.Networks[i].Limits)
	}
	rules, err := policy.New(o)
	if err != nil {
		return err
	}
	t.policy.Store(rules)
	gates := gateSteps(c, t.host)
	for i := range gates {
		gates[i].Gate = witnessedGate{gates[i].Name, gates[i].Gate, t}
	}
	t.gates.Store(pipeline.NewGates(gates, nil, t.log))
	filters := pipeline.Options{Trace: untraced{}, Clock: time.Now, Witness: t, Allowed: allowance(c, t.directory, t.log)}
	filters.Steps, filters.Timeout = steps(c, t.host), messageTime
	t.rules = intakeRules(c, pipeline.New(filters), dirs, table)
	sending.extend(&t.rules)
	t.intake = intake.New(intake.Options{Hostname: c.Hostname.String(), Postmaster: c.Postmaster, IDs: &queue.IDs{}, Spool: content, Store: nowhere{},
		Backoff: backoff(c), Trace: untraced{}, Log: t.log, Clock: time.Now}, t.rules)
	return nil
}

// unhurried takes away the limits by time: who tries many messages is not many clients.
func unhurried(l *policy.Limits) { l.MessagesPerMinute, l.RecipientsPerHour = 0, 0 }

func (t *trial) close() {
	if t.host != nil {
		ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		t.host.Close(ending)
		cancel()
	}
	t.closeBacks()
	if t.behind != nil {
		t.behind.Close()
	}
	if t.directory != nil {
		t.directory.Close()
	}
	os.RemoveAll(t.dir)
}

// revive starts plugins anew that died of the message before: each finds them as it would
// find them in a gateway that has run for long.
func (t *trial) revive(ctx context.Context) {
	for _, s := range t.host.Status() {
		if s.State != "running" || t.fallen[s.Name] {
			if err := t.host.Restart(ctx, s.Name); err != nil {
				t.log.Warn("plugin stays down", "plugin", s.Name, "error", err)
			}
		}
	}
	t.fallen = nil
}

// fell notes a plugin that was down when it was asked, or has just died.
func (t *trial) fell(plugin string, err error) {
	var r interface{ Reason() string }
	if !errors.As(err, &r) || r.Reason() != string(pipeline.Down) && r.Reason() != string(pipeline.Convicted) {
		return
	}
	if t.fallen == nil {
		t.fallen = make(map[string]bool)
	}
	t.fallen[plugin] = true
}

// server is that of the first listener of a role, with TLS from the first byte where
// somebody logs in, for passwords are not taken without.
func (t *trial) server(e tryEnvelope) (*smtpd.Server, error) {
	c := t.config
	role := smtpd.MX
	if e.user != "" {
		role = smtpd.Submission
	}
	o := smtpd.Options{Hostname: c.Hostname.String(), Role: role, Name: "try", Policy: &guard{&t.policy, &t.gates, role == smtpd.Submission},
		Intake: &door{t.intake}, Log: t.log, Limits: smtpd.Limits{MessageSize: int64(c.Limits.MessageSize), Recipients: c.Limits.Recipients, Errors: len(e.to) + 10}}
	for _, l := range c.Listeners {
		if smtpd.Role(l.Role) == role {
			o.Name = l.Address
			break
		}
	}
	if e.user != "" {
		o.TLS, o.TLSConfig, o.Auth, o.Authenticator = smtpd.TLSImplicit, t.certs.Config(), smtpd.AuthOptional, loggedIn{}
	}
	return smtpd.New(o)
}

// Asked notes what a filter answered.
func (t *trial) Asked(a pipeline.Answer) {
	t.note(func(r *report) { r.filter(a); t.fell(a.Plugin, a.Err) })
}

// Ended notes what became of the message.
func (t *trial) Ended(versions []pipeline.Version) {
	t.note(func(r *report) { r.versions, r.ran = versions, true })
}

func (t *trial) note(f func(*report)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.report != nil { // else it comes too late
		f(t.report)
	}
}

// witnessedGate notes what a gate answered.
type witnessedGate struct {
	name  string
	gate  pipeline.Gate
	trial *trial
}

// Gate asks the gate.
func (g witnessedGate) Gate(ctx context.Context, a *sdk.Attempt) (*sdk.Verdict, error) {
	begin := time.Now()
	v, err := g.gate.Gate(ctx, a)
	took := float64(time.Since(begin).Microseconds()) / 1000
	g.trial.note(func(r *report) { r.gate(g.name, a, v, err, took); g.trial.fell(g.name, err) })
	return v, err
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

// trialServices are what plugins may ask of a trial: what the gateway answers, but that mail
// is not queued and nothing was ever remembered.
type trialServices struct {
	*services
	limit int64
}

func newTrialServices(t *trial) *trialServices {
	g := &gateway{log: t.log, directory: t.directory, keeping: &keeping{clock: steadyClock()}}
	g.config.Store(t.config)
	g.services.g = g
	g.services.certs.Store(t.certs)
	return &trialServices{&g.services, int64(t.config.Limits.MessageSize)}
}

func (s *trialServices) forPlugins() pluginhost.Services {
	offered := s.services.forPlugins()
	offered.Submitter, offered.Memory = s, s
	return offered
}

func (s *trialServices) attach(dirs *directories) error {
	a, err := newAuthenticator(s.g.config.Load(), s.g.directory, dirs, s.g.log)
	s.directories.Store(dirs)
	s.authenticator.Store(a)
	return err
}

// Submit reads the message and forgets it.
func (s *trialServices) Submit(_ context.Context, m pluginhost.Submission) (string, error) {
	n, err := io.Copy(io.Discard, io.LimitReader(m.Message, s.limit+1))
	if err == nil && n > s.limit {
		err = mail.Permanent(552, 3, 4, "Message is too large")
	}
	return (&queue.IDs{}).New(time.Now()).String(), err
}

// Remembered says no.
func (s *trialServices) Remembered(context.Context, string, mail.Path, string) (bool, error) {
	return false, nil
}
