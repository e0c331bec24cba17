package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk/mail"
)

// Validate reports everything that is wrong with the values, as a [Problems]; nil if
// nothing is. It looks at the files that are named, but connects to nothing. Load calls it.
func (c *Config) Validate() error { return c.problems().sorted() }

func (c *Config) problems() Problems {
	v := &validator{c: c, addresses: make(map[string]bool)}
	v.basics()
	for i := range c.Listeners {
		v.listener(indexKey("listener", i), &c.Listeners[i])
	}
	v.tls()
	v.networks()
	v.limits()
	v.access()
	v.oneOf("auth.sender_login", c.Auth.SenderLogin, "strict", "off")
	v.smarthost()
	v.domains()
	v.callahead()
	for i, s := range c.DNS.Servers {
		v.hostPort(indexKey("dns.servers", i), s)
	}
	for i := range c.Destinations {
		v.destination(indexKey("destination", i), &c.Destinations[i])
	}
	v.queue()
	v.quarantine()
	v.srs()
	v.oneOf("log.format", c.Log.Format, "text", "json")
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	if c.Admin.Address != "" {
		v.problem("admin.address", "the HTTP interface is not available in this version; remove the key")
	}
	if c.Cluster.Database != "" {
		v.problem("cluster.database", "clusters are not available in this version; remove the key")
	}
	v.plugins()
	return v.problems
}

// validator collects what is wrong with a Config.
type validator struct {
	c         *Config
	problems  Problems
	addresses map[string]bool // of listeners so far
}

func (v *validator) problem(key, format string, args ...any) {
	if len(v.problems) >= maxProblems {
		return
	}
	v.problems = append(v.problems, Problem{v.c.file, lineOf(v.c.lines, key), key, fmt.Sprintf(format, args...)})
}

func (v *validator) oneOf(key, value string, words ...string) {
	if slices.Contains(words, value) {
		return
	}
	last := len(words) - 1
	v.problem(key, "%q is not possible here; use %s or %s", value, strings.Join(words[:last], ", "), words[last])
}

func (v *validator) atLeast(key string, value, least int) {
	if value < least {
		v.problem(key, "must be at least %d", least)
	}
}

func (v *validator) hostPort(key, value string) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		v.problem(key, `%q is not an address; write it "host:port"`, value)
		return
	}
	if host == "" {
		v.problem(key, "%q has no host", value)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		v.problem(key, "port %q of %q must be a number from 1 to 65535", port, value)
	}
}

// text checks words that end up in replies and log lines.
func (v *validator) text(key, value string, limit int) {
	if len(value) > limit {
		v.problem(key, "is longer than %d bytes", limit)
	}
	if !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		v.problem(key, "has control characters")
	}
}

func (v *validator) basics() {
	c := v.c
	if c.Hostname.IsZero() {
		v.problem("hostname", `is missing: the gateway's own name, hostname = "mx.example.org"`)
	} else if _, literal := c.Hostname.Literal(); literal {
		v.problem("hostname", "must be a name, not an address")
	}
	if c.DataDir == "" {
		v.problem("data_dir", `is missing: the directory for the gateway's data, data_dir = "data"`)
	} else if info, err := os.Stat(c.DataDir); err == nil && !info.IsDir() {
		v.problem("data_dir", "%s is not a directory", c.DataDir)
	}
	if len(c.Listeners) == 0 {
		v.problem("listener", "is missing: add a [[listener]] with address and role")
	}
}

func (v *validator) listener(key string, l *Listener) {
	path, isUnix := strings.CutPrefix(l.Address, "unix:")
	switch {
	case l.Address == "":
		v.problem(key+".address", `is missing: "host:port" or "unix:/path"`)
	case isUnix && (path == "" || len(path) > 100): // the kernel's limit is 107 bytes
		v.problem(key+".address", "the path of a unix socket has 1 to 100 bytes")
	case !isUnix:
		v.listenAddress(key+".address", l.Address)
	}
	if v.addresses[l.Address] && l.Address != "" && !strings.HasSuffix(l.Address, ":0") {
		v.problem(key+".address", "%q is the address of another listener too", l.Address)
	}
	v.addresses[l.Address] = true
	if l.Role == "" {
		v.problem(key+".role", "is missing: mx, submission, lmtp or reinjection")
	} else {
		v.oneOf(key+".role", l.Role, "mx", "submission", "lmtp", "reinjection")
	}
	v.oneOf(key+".tls", l.TLS, "none", "starttls", "required", "implicit")
	v.oneOf(key+".auth", l.Auth, "off", "optional", "required")
	if l.Auth != "off" && l.TLS == "none" {
		v.problem(key+".auth", `log-ins need TLS; set tls = "starttls" (or required, implicit), or auth = "off"`)
	}
	if l.Auth != "off" && (l.Role == "lmtp" || l.Role == "reinjection") {
		v.problem(key+".auth", "there are no log-ins on a listener of role %s; remove the key", l.Role)
	}
	if l.DSN && l.Role == "reinjection" {
		v.problem(key+".dsn", "what comes back is reported by the message that it belongs to; remove the key")
	}
	if l.Role == "reinjection" && len(l.Clients) == 0 && !isUnix {
		v.problem(key+".clients", `is empty: name where the content filter connects from, as in clients = ["127.0.0.1"]`)
	}
	v.networkList(key+".clients", l.Clients, false)
	v.networkList(key+".proxy_from", l.ProxyFrom, !isUnix)
	if time.Duration(l.GreetDelay) > 30*time.Second {
		v.problem(key+".greet_delay", "must be at most 30s: clients would give up")
	}
}

// listenAddress is like hostPort, but the host may be empty and the port 0.
func (v *validator) listenAddress(key, value string) {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		v.problem(key, `%q is not an address; write it "host:port" or "unix:/path"`, value)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		v.problem(key, "port %q must be a number from 0 to 65535", port)
	}
}

func (v *validator) tls() {
	t := v.c.TLS
	switch {
	case t.Certificate != "" && t.Key == "":
		v.problem("tls.key", "is missing: the private key of the certificate")
	case t.Certificate == "" && t.Key != "":
		v.problem("tls.certificate", "is missing: the certificate of the key")
	}
	v.readable("tls.certificate", t.Certificate)
	v.secret("tls.key", t.Key)
}

// readable checks that a file is there.
func (v *validator) readable(key, path string) {
	if path == "" {
		return
	}
	if info, err := os.Stat(path); err != nil {
		v.problem(key, "%s: %v", path, plainError(err))
	} else if !info.Mode().IsRegular() {
		v.problem(key, "%s is not a regular file", path)
	}
}

// secret checks that a file is there and that nobody else may read it.
func (v *validator) secret(key, path string) {
	if path == "" {
		return
	}
	if _, err := os.Stat(path); err != nil {
		v.problem(key, "%s: %v", path, plainError(err))
	} else if err := checkSecret(path); err != nil {
		v.problem(key, "%s %v", path, err)
	}
}

// program checks that a file can be run.
func (v *validator) program(key, path string) {
	if info, err := os.Stat(path); err != nil {
		v.problem(key, "%s: %v", path, plainError(err))
	} else if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		v.problem(key, "%s is not a program", path)
	}
}

func checkSecret(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return plainError(err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("is not a regular file")
	}
	if worldAccess(info.Mode()) {
		return fmt.Errorf("may be read by everybody; run: chmod 600 %s", path)
	}
	return nil
}

func (v *validator) smarthost() {
	s := v.c.Smarthost
	for i, a := range s.Address {
		key := "smarthost.address"
		if len(s.Address) > 1 {
			key = indexKey(key, i)
		}
		if _, err := route.ParseSmarthost(a); err != nil {
			v.problem(key, "%q: %v", a, err)
		}
	}
	hasPassword := s.PasswordFile != "" || s.PasswordEnv != ""
	switch {
	case len(s.Address) == 0 && (s.Username != "" || hasPassword):
		v.problem("smarthost.address", "is missing: a user name or password without it has no use")
	case s.Username != "" && !hasPassword:
		v.problem("smarthost.username", "needs password_file or password_env")
	case s.Username == "" && hasPassword:
		v.problem("smarthost.username", "is missing: there is a password")
	case s.PasswordFile != "" && s.PasswordEnv != "":
		v.problem("smarthost.password_env", "is not possible together with password_file")
	case s.PasswordEnv != "" && os.Getenv(s.PasswordEnv) == "":
		v.problem("smarthost.password_env", "the environment variable %q is not set", s.PasswordEnv)
	case s.PasswordFile != "":
		var missing syscall.Errno
		if _, err := s.Password(); errors.As(err, &missing) {
			v.problem("smarthost.password_file", "%s: %v", s.PasswordFile, err)
		} else if err != nil {
			v.problem("smarthost.password_file", "%s %v", s.PasswordFile, err)
		}
	}
}

func (v *validator) domains() {
	names := make(map[mail.Domain]bool)
	use := func(key string, d mail.Domain) {
		if _, literal := d.Literal(); literal {
			v.problem(key, "must be a name, not an address")
		} else if names[d] {
			v.problem(key, "domain %q is there twice", d)
		}
		names[d] = true
	}
	for i, d := range v.c.Domains {
		key := indexKey("domain", i)
		if d.Name.IsZero() {
			v.problem(key+".name", `is missing: name = "example.org"`)
		} else {
			use(key+".name", d.Name)
		}
		for j, a := range d.Aliases {
			use(indexKey(key+".aliases", j), a)
		}
		if len(d.Deliver) == 0 {
			v.problem(key+".deliver", `is missing: a mailbox plugin ("maildir") or a server ("smtp://192.0.2.1:25")`)
		}
		for j, t := range d.Deliver {
			k := key + ".deliver"
			if len(d.Deliver) > 1 {
				k = indexKey(k, j)
			}
			if _, err := route.ParseHop(t); err != nil {
				v.problem(k, "%q: %v", t, err)
			}
		}
		v.planner(key+".planner", d)
		if d.Folders != "" {
			v.oneOf(key+".folders", d.Folders, "inbox", "detail")
		}
		if !d.Postmaster.IsZero() && d.Postmaster.Domain.IsZero() {
			v.problem(key+".postmaster", "needs a domain")
		}
		for j, p := range d.CatchAll {
			if p.Domain.IsZero() {
				v.problem(indexKey(key+".catch_all", j), "needs a local part and a domain")
			}
		}
		if d.Directory != "" {
			v.listed(key+".directory", d.Directory)
			if d.Recipients != "directory" {
				v.problem(key+".recipients", `has to be "directory": the plugin %q knows which addresses exist`, d.Directory)
			}
		}
		v.oneOf(key+".recipients", d.Recipients, "directory", "callahead", "any")
		for _, t := range d.Deliver {
			if h, err := route.ParseHop(t); d.Recipients == "callahead" && err == nil && h.Scheme == route.SchemeMailbox {
				v.problem(key+".recipients", "callahead needs a server that can be asked (smtp://, smtps:// or lmtp://) in deliver; %q is a mailbox plugin: use directory", t)
			}
		}
	}
}

func (v *validator) callahead() {
	c := &v.c.Callahead
	if c.Refresh > c.Keep {
		v.problem("callahead.refresh", "must be at most keep (%s)", c.Keep)
	}
	if t := time.Duration(c.Timeout); t < time.Second || t > 2*time.Minute { // RFC 5321 §4.5.3.2.3: clients wait five
		v.problem("callahead.timeout", "must be from 1s to 2m")
	}
	v.atLeast("callahead.concurrency", c.Concurrency, 1)
}

// planner checks that a planner is a plugin that runs.
func (v *validator) planner(key string, d Domain) {
	if d.Planner == "" {
		return
	}
	v.listed(key, d.Planner)
}

// listed checks that a plugin is listed.
func (v *validator) listed(key, name string) {
	if !slices.ContainsFunc(v.c.Plugins, func(p Plugin) bool { return p.Name == name }) {
		v.problem(key, "there is no plugin %q; list it as a [[plugin]]", name)
	}
}

func (v *validator) destination(key string, d *Destination) {
	if d.Match == "" {
		v.problem(key+".match", `is missing: a domain, "*.example.com", an address or "*"`)
	} else if _, err := netip.ParseAddr(d.Match); err != nil && d.Match != "*" {
		if _, err := mail.ParseDomain(strings.TrimPrefix(d.Match, "*.")); err != nil {
			v.problem(key+".match", `%q is not a domain, "*.example.com", an address or "*"`, d.Match)
		}
	}
	v.oneOf(key+".tls", d.TLS, "opportunistic", "required")
	v.readable(key+".ca_file", d.CAFile)
	if d.Pin != "" {
		digest, ok := strings.CutPrefix(d.Pin, "sha256:")
		if b, err := hex.DecodeString(strings.ReplaceAll(digest, ":", "")); !ok || err != nil || len(b) != 32 {
			v.problem(key+".pin", `must be "sha256:" and 64 hex digits`)
		}
	}
	if d.TLS != "required" && (d.Pin != "" || d.CAFile != "") {
		v.problem(key+".tls", `a pin or ca_file needs tls = "required"`)
	}
}

func (v *validator) queue() {
	q := v.c.Queue
	if time.Duration(q.RetryFirst) < time.Second {
		v.problem("queue.retry_first", "must be at least 1s")
	}
	if q.RetryMax < q.RetryFirst {
		v.problem("queue.retry_max", "must be at least retry_first (%s)", q.RetryFirst)
	}
	if time.Duration(q.Lifetime) < time.Minute {
		v.problem("queue.lifetime", "must be at least 1m")
	}
	if time.Duration(q.JournalLifetime) < time.Minute {
		v.problem("queue.journal_lifetime", "must be at least 1m")
	}
	if q.DelayWarning > 0 && q.DelayWarning >= q.Lifetime {
		v.problem("queue.delay_warning", `must be shorter than lifetime (%s); "0s" turns it off`, q.Lifetime)
	}
	v.atLeast("queue.concurrency", q.Concurrency, 1)
	v.atLeast("queue.concurrency_per_destination", q.ConcurrencyPerDestination, 1)
	if q.ConcurrencyPerDestination > q.Concurrency {
		v.problem("queue.concurrency_per_destination", "must be at most concurrency (%d)", q.Concurrency)
	}
}

func (v *validator) quarantine() {
	q := &v.c.Quarantine
	if time.Duration(q.Keep) < time.Minute {
		v.problem("quarantine.keep", "must be at least 1m")
	}
	v.oneOf("quarantine.digest", q.Digest, "off", "daily")
	if _, _, _, err := q.Clock(); err != nil {
		v.problem("quarantine.digest_time", `%q is not a time of day; write it like "07:00"`, q.DigestTime)
	}
}

// worldAccess reports whether everybody can do something with a file.
func worldAccess(mode os.FileMode) bool { return mode.Perm()&0o007 != 0 }
