package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/callahead"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/policy"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/core/tlsconf"
	"github.com/postern-mail/postern/sdk/mail"
)

// Faults is how many a check found.
type Faults int

// Error says it.
func (f Faults) Error() string {
	if f == 1 {
		return "1 fault"
	}
	return fmt.Sprintf("%d faults", int(f))
}

// Check runs every examination, prints a line for each, and returns an error if one failed.
func Check(ctx context.Context, c *config.Config, out io.Writer) error {
	faults := 0
	said := make(map[string]bool)
	report := func(what string, err error) {
		if err == nil {
			fmt.Fprintf(out, "ok     %s\n", what)
			return
		}
		said[err.Error()] = true
		faults++
		fmt.Fprintf(out, "FAULT  %s: %s\n", what, strings.ReplaceAll(err.Error(), "\n", "\n       "))
	}
	log := slog.New(warnings{out})
	report("configuration file "+c.File(), nil)
	report("data directory "+c.DataDir, checkDataDir(c, log))
	report("TLS certificate", checkCertificate(c, log))
	_, err := routes(c, nil)
	report("next hops", err)
	_, err = smtpclient.New(clientOptionsWithoutDNS(c))
	report("destinations", err)
	report("relay policy", checkRelay(ctx, c))
	for _, line := range checkPlugins(ctx, c) {
		report(line.what, line.err)
	}
	warnUnsigned(ctx, c, log)
	// The last: it is done as the owner of the data. What is wrong with the file is in its way, too.
	if err := checkStoredDomains(ctx, c); err == nil || !said[err.Error()] {
		report("domains of the directory", err)
	}
	if faults > 0 {
		return Faults(faults)
	}
	return nil
}

func clientOptionsWithoutDNS(c *config.Config) smtpclient.Options {
	log := QuietLog(c)
	r, _ := newResolver(c, log)
	return clientOptions(c, r, nil, log)
}

// checkDataDir looks whether a queue could be kept there. It makes nothing but a file that
// it removes again.
func checkDataDir(c *config.Config, log *slog.Logger) error {
	dir := c.DataDir
	for { // the nearest that exists
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
		if err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return err
		}
		dir = parent
	}
	f, err := os.CreateTemp(dir, ".postern-check")
	if err != nil {
		return fmt.Errorf("cannot be written to: %w", err)
	}
	f.Close()
	os.Remove(f.Name())
	probe := *c
	probe.DataDir = dir
	return checkDisk(&probe, log)
}

func checkCertificate(c *config.Config, log *slog.Logger) error {
	if c.TLS.Certificate == "" {
		log.Warn("no TLS certificate is configured: serve makes a self-signed one, which clients that verify will refuse")
		return nil
	}
	_, err := tlsconf.Load(tlsconf.Options{Certificate: c.TLS.Certificate, Key: c.TLS.Key, Hostname: c.Hostname.String(), Log: log})
	return err
}

// checkRelay asks the policy as an open-relay test would, from an address that nobody
// named (RFC 5737's TEST-NET-3).
func checkRelay(ctx context.Context, c *config.Config) error {
	dir, err := os.MkdirTemp("", "postern-check")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := directory.Open(directory.Options{Path: filepath.Join(dir, "directory.db"), Hostname: c.Hostname, Postmaster: c.Postmaster})
	if err != nil {
		return err
	}
	defer d.Close()
	d.Declare(Declared(c), c.Postmaster)
	p, err := policy.New(policyOptions(c, d, &callahead.Remembered{}, nil, QuietLog(c)))
	if err != nil {
		return err
	}
	client := mail.Client{Addr: netip.MustParseAddr("203.0.113.77"), Helo: "relay-test.invalid"}
	if s := p.Connect(ctx, &client); !s.IsZero() && !s.Success() {
		return nil // strangers may not even connect
	}
	if client.Class != mail.Stranger {
		return errors.New("every address is in a relay network: the gateway would be an open relay")
	}
	victim := mail.MustDomain("relay-test.invalid")
	for _, to := range []mail.Path{{Local: "probe", Domain: victim}, {Local: "probe%" + victim.String(), Domain: c.Hostname}, {Local: "probe", Domain: mail.MustDomain("[127.0.0.1]")}} {
		if s := p.Recipient(ctx, &mail.Envelope{Origin: mail.Incoming, Client: client}, to); s.IsZero() || s.Success() {
			return fmt.Errorf("a stranger may send to <%s>: the gateway is an open relay", to)
		}
	}
	return nil
}

// warnings prints what serve would warn of as lines of the check.
type warnings struct{ out io.Writer }

func (w warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (w warnings) WithAttrs([]slog.Attr) slog.Handler           { return w }
func (w warnings) WithGroup(string) slog.Handler                { return w }

func (w warnings) Handle(_ context.Context, r slog.Record) error {
	line := "warn   " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	_, err := fmt.Fprintln(w.out, terminal.Printable(line))
	return err
}

type checkLine struct {
	what string
	err  error
}

// checkEach starts the plugins one by one where together they do not start: every one that is at
// fault is told of, and not the first only.
func checkEach(ctx context.Context, o pluginhost.Options, specs []pluginhost.Spec, together error) []checkLine {
	var lines []checkLine
	for _, s := range specs {
		host, err := pluginhost.Start(ctx, o, []pluginhost.Spec{s})
		if err != nil {
			lines = append(lines, checkLine{"plugins", err})
			continue
		}
		host.Close(context.WithoutCancel(ctx))
	}
	if len(lines) == 0 {
		return []checkLine{{"plugins", together}}
	}
	return lines
}

// checkPlugins starts every plugin with its settings, in a place of its own.
func checkPlugins(ctx context.Context, c *config.Config) []checkLine {
	specs, err := PluginSpecs(c)
	if err != nil {
		return []checkLine{{"plugins", err}}
	}
	dir, err := os.MkdirTemp("", "postern-check")
	if err != nil {
		return []checkLine{{"plugins", err}}
	}
	defer os.RemoveAll(dir)
	options := hostOptions(c, filepath.Join(dir, "run"), QuietLog(c))
	options.Idle = true // the gateway may be running
	host, err := pluginhost.Start(ctx, options, specs)
	if err != nil {
		return checkEach(ctx, options, specs, err)
	}
	defer host.Close(context.WithoutCancel(ctx))
	var lines []checkLine
	for _, s := range specs {
		what := "plugin " + s.Name + " starts"
		if s.Files != nil {
			what += fmt.Sprintf(", restricted to its files by Landlock %d", confine.Landlock())
		}
		if i := slices.IndexFunc(c.Plugins, func(p config.Plugin) bool { return p.Name == s.Name }); i >= 0 {
			_, filter := host.Filter(s.Name)
			_, gate := host.Gate(s.Name)
			if filter || gate {
				what += "; when it fails: " + describeFailure(c.Plugins[i].OnFailure)
			}
			switch parks := gate && strings.Contains(what, string(pipeline.FailPark)); {
			case parks && filter:
				what += " (where it is a gate, before there is a message to park: the session goes on)"
			case parks:
				what += " (a gate is asked before there is a message to park: tempfail)"
			}
		}
		lines = append(lines, checkLine{what, nil})
	}
	for _, d := range c.Domains {
		if d.Directory != "" {
			line := checkLine{what: fmt.Sprintf("domain %s: directory %s", d.Name, d.Directory)}
			if _, ok := host.Directory(d.Directory); !ok {
				line.err = errors.New("the plugin is no directory; name one that is, or remove the key")
			}
			lines = append(lines, line)
		}
		if d.Planner == "" {
			continue
		}
		line := checkLine{what: fmt.Sprintf("domain %s: planner %s", d.Name, d.Planner)}
		if _, ok := host.Planner(d.Planner); !ok {
			line.err = errors.New("the plugin makes no plans; name one that does, or remove the key")
		}
		lines = append(lines, line)
	}
	lines = append(lines, checkLine{"what content filters bring back", checkReinjection(c, host)})
	return append(lines, checkLine{"order of plugins", checkOrder(c, host)})
}

func describeFailure(o config.OnFailure) string {
	text := o.Default
	for _, part := range []struct{ name, choice string }{{"stranger", o.Stranger}, {"authenticated", o.Authenticated}, {"relay", o.Relay}, {"down", o.Down}, {"timeout", o.Timeout}, {"error", o.Error}} {
		if part.choice != "" {
			text += ", " + part.name + " " + part.choice
		}
	}
	return text
}
