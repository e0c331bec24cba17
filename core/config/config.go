// Package config reads the one TOML file of the gateway into typed values.
//
// It promises: decoding is strict (a key that does not exist, a wrong type, a key given
// twice are errors), every problem is reported at once with file, line and what to do, and
// nothing that is accepted is ignored. A [Config] that [Load] returned is complete:
// defaults filled in, relative paths made absolute from the place of the file, names of
// networks known. The file is never written. It refuses to know what the values are for;
// only the command imports it.
//
// Files of more than 1 MiB or nested deeper than 16 levels are refused before they are
// parsed. A Config is not changed after Load and may be read concurrently.
package config

import (
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Config is the whole file.
type Config struct {
	// Hostname is the gateway's own name: in the greeting, in EHLO, in Received.
	// Default: none, it is required.
	Hostname mail.Domain `toml:"hostname"`
	// DataDir is the directory for everything the gateway keeps. It is made if it is missing.
	// Default: none, it is required.
	DataDir string `toml:"data_dir"`
	// Postmaster is the address of the person in charge. Mail for postmaster at a domain
	// without such an account goes there, and delivery reports name it.
	// Default: "postmaster@" and the hostname.
	Postmaster mail.Path `toml:"postmaster"`
	// UnsafeSpool accepts a data_dir on a file system that forgets at a power cut (tmpfs) or
	// that gives no promises (network file systems). For tests.
	// Default: false
	UnsafeSpool bool `toml:"unsafe_spool"`

	// Listeners are the addresses mail comes in on.
	// Default: none, one is required.
	Listeners []Listener `toml:"listener"`
	// TLS is the certificate of the listeners.
	// Default: a self-signed certificate.
	TLS TLS `toml:"tls"`
	// Networks gives names to groups of addresses, usable wherever networks are.
	// Default: no names.
	Networks map[string]Strings `toml:"networks"`
	// Relay says who may send anywhere without logging in.
	// Default: nobody.
	Relay Relay `toml:"relay"`
	// Limits bound what a client may do.
	// Default: see each key.
	Limits Limits `toml:"limits"`
	// Access holds the lists of clients, senders and recipients to let in or refuse.
	// Default: empty lists.
	Access Access `toml:"access"`
	// Auth is about log-ins.
	// Default: see each key.
	Auth Auth `toml:"auth"`
	// Smarthost takes all mail for other domains.
	// Default: none, mail goes to the recipients' MX hosts.
	Smarthost Smarthost `toml:"smarthost"`
	// Domains are the domains that the gateway is responsible for.
	// Default: none.
	Domains []Domain `toml:"domain"`
	// Callahead is about domains with recipients = "callahead": what their servers are asked.
	// Default: see each key.
	Callahead Callahead `toml:"callahead"`
	// DNS is about name resolution.
	// Default: the resolver of the system.
	DNS DNS `toml:"dns"`
	// Destinations say how to talk to next hops; the first match wins.
	// Default: none.
	Destinations []Destination `toml:"destination"`
	// Queue is about retries.
	// Default: see each key.
	Queue Queue `toml:"queue"`
	// SRS is about the reverse-path of mail that is sent on to other domains.
	// Default: see there.
	SRS SRS `toml:"srs"`
	// Quarantine is about mail that plugins want held.
	// Default: see each key.
	Quarantine Quarantine `toml:"quarantine"`
	// Log is about log lines.
	// Default: see each key.
	Log Log `toml:"log"`
	// Admin is the HTTP interface.
	// Default: the unix socket only.
	Admin Admin `toml:"admin"`
	// Cluster joins several gateways.
	// Default: this gateway is alone.
	Cluster Cluster `toml:"cluster"`
	// Plugins run in this order.
	// Default: none.
	Plugins []Plugin `toml:"plugin"`

	file    string // as given to Load, for messages
	exposed bool   // everybody can read the file
	lines   map[string]int
}

// Listener is one address that mail comes in on.
type Listener struct {
	// Address is "host:port" or "unix:/path".
	// Default: none, it is required.
	Address string `toml:"address"`
	// Role is "mx" (mail from other servers), "submission" (mail from users), "lmtp" or
	// "reinjection" (what a content filter brings back to the plugin that waits for it).
	// Default: none, it is required.
	Role string `toml:"role"`
	// TLS is "none", "starttls" (offered), "required" (nothing without STARTTLS) or "implicit"
	// (TLS from the first byte).
	// Default: "starttls"; "none" with role lmtp or reinjection.
	TLS string `toml:"tls"`
	// Auth is "off", "optional" or "required". Log-ins are offered inside TLS only.
	// Default: "off"; "required" with role submission.
	Auth string `toml:"auth"`
	// Clients lists the networks that may connect; others are refused. Empty: everybody may.
	// Default: []; ["127.0.0.0/8", "::1"] with role reinjection.
	Clients Strings `toml:"clients"`
	// ProxyFrom lists the networks whose PROXY header is believed.
	// Default: []
	ProxyFrom Strings `toml:"proxy_from"`
	// DSN offers the DSN extension: the client asks for delivery reports.
	// Default: false; true with role submission.
	DSN bool `toml:"dsn"`
	// GreetDelay is the time before the greeting; who talks earlier is refused. At most 30 seconds.
	// Default: "0s"
	GreetDelay Duration `toml:"greet_delay"`
}

// TLS is the certificate of the listeners.
type TLS struct {
	// Certificate is a PEM file: the certificate, then its chain. Empty: a self-signed
	// one is made in data_dir, with a warning.
	// Default: ""
	Certificate string `toml:"certificate"`
	// Key is the PEM file of its private key; nobody else may read it.
	// Default: ""
	Key string `toml:"key"`
}

// Relay says who may send anywhere without logging in.
type Relay struct {
	// Networks may relay: CIDRs, single addresses and names from [networks].
	// Default: []
	Networks Strings `toml:"networks"`
	// AllowEveryone permits networks so large that the gateway becomes an open relay.
	// Default: false
	AllowEveryone bool `toml:"allow_everyone"`
}

// Limits bound what a client may do.
type Limits struct {
	// MessageSize is the largest message taken.
	// Default: "25MiB"
	MessageSize Size `toml:"message_size"`
	// HeaderSize is the largest header block taken.
	// Default: "1MiB"
	HeaderSize Size `toml:"header_size"`
	// Recipients is how many recipients one message may have; later ones get 452.
	// Default: 1000
	Recipients int `toml:"recipients"`
	// ReceivedHops is how many Received fields a message may have: more is a loop.
	// Default: 100
	ReceivedHops int `toml:"received_hops"`
	// Errors is how many commands of a session may fail before it is closed.
	// Default: 10
	Errors int `toml:"errors"`
	// Connections is how many sessions each listener may have at a time.
	// Default: 500
	Connections int `toml:"connections"`
	// ConnectionsPerClient is how many of them one client may have. A client is an IPv4
	// address or an IPv6 /64.
	// Default: 50
	ConnectionsPerClient int `toml:"connections_per_client"`
	// MessagesPerMinute is how many messages a client may send in a minute; more get 450.
	// 0: no limit.
	// Default: 0
	MessagesPerMinute int `toml:"messages_per_minute"`
	// RecipientsPerHour is how many recipients a client may name in an hour; more get 450.
	// 0: no limit.
	// Default: 0
	RecipientsPerHour int `toml:"recipients_per_hour"`
	// Networks are other limits for named networks; of several that contain a client, the
	// smallest network counts.
	// Default: none.
	Networks map[string]NetworkLimits `toml:"networks"`
}

// NetworkLimits are limits for the clients of a named network; what is not said is as in
// the limits for everybody.
type NetworkLimits struct {
	// MessageSize is the largest message taken. It cannot be more than limits.message_size.
	// Default: as in [limits].
	MessageSize *Size `toml:"message_size"`
	// ConnectionsPerClient is how many sessions one client may have.
	// Default: as in [limits].
	ConnectionsPerClient *int `toml:"connections_per_client"`
	// MessagesPerMinute is how many messages a client may send in a minute; 0: no limit.
	// Default: as in [limits].
	MessagesPerMinute *int `toml:"messages_per_minute"`
	// RecipientsPerHour is how many recipients a client may name in an hour; 0: no limit.
	// Default: as in [limits].
	RecipientsPerHour *int `toml:"recipients_per_hour"`
}

// Access holds three lists of rules; in each the first rule that matches decides.
type Access struct {
	// Clients are rules about the addresses of clients: CIDRs and names from [networks].
	// Default: none.
	Clients []AccessRule `toml:"clients"`
	// Senders are rules about reverse-paths: "user@example.com", "example.com" or
	// "*.example.com" (every name below it).
	// Default: none.
	Senders []AccessRule `toml:"senders"`
	// Recipients are rules about forward-paths, written like senders.
	// Default: none.
	Recipients []AccessRule `toml:"recipients"`
}

// AccessRule is one rule of an access list.
type AccessRule struct {
	// Match is what the rule is about: one, or an array.
	// Default: none, it is required.
	Match Strings `toml:"match"`
	// Action is "allow" (no later rule of the list is asked; it gives no right to relay) or
	// "reject".
	// Default: "reject"
	Action string `toml:"action"`
	// Text is what the refusal says.
	// Default: ""
	Text string `toml:"text"`
}

// Auth is about log-ins.
type Auth struct {
	// SenderLogin binds the reverse-path of submitted mail, and addresses of ours in its From, to the
	// login: "strict" (its own address and the aliases that lead to it) or "off".
	// Default: "strict"
	SenderLogin string `toml:"sender_login"`
	// DefaultDomain is added to a login without a domain; empty: such a login fails.
	// Default: ""
	DefaultDomain mail.Domain `toml:"default_domain"`
}

// Smarthost takes all mail for other domains.
type Smarthost struct {
	// Address is "host:port", or an array tried in order; port 465 means TLS from the first
	// byte. Empty: mail goes to the recipients' MX hosts.
	// Default: ""
	Address Strings `toml:"address"`
	// Username logs in at the smarthost.
	// Default: ""
	Username string `toml:"username"`
	// PasswordFile holds the password in its first line; nobody else may read it.
	// Default: ""
	PasswordFile string `toml:"password_file"`
	// PasswordEnv names the environment variable that holds the password instead.
	// Default: ""
	PasswordEnv string `toml:"password_env"`
}

// Domain is a domain that the gateway is responsible for.
type Domain struct {
	// Name is the domain.
	// Default: none, it is required.
	Name mail.Domain `toml:"name"`
	// Aliases are other names for it: a mailbox there is the same mailbox.
	// Default: []
	Aliases []mail.Domain `toml:"aliases"`
	// Deliver is where its mail goes: a mailbox plugin ("maildir"), "smtp://host:port",
	// "smtps://host:port", "lmtp://host:port" or "lmtp://unix:/path"; one, or an array tried
	// in order.
	// Default: none, it is required.
	Deliver Strings `toml:"deliver"`
	// Recipients says which addresses exist: "directory" (accounts and aliases), "callahead" (those
	// too, and what the server in deliver takes: see [callahead]) or "any".
	// Default: "directory"
	Recipients string `toml:"recipients"`
	// Directory is the plugin that knows which addresses exist and checks passwords, in the
	// place of accounts and aliases.
	// Default: "", accounts and aliases.
	Directory string `toml:"directory"`
	// Planner is the plugin that decides, for each recipient, what becomes of a message
	// before it goes into the mailbox: folder, redirects, replies. "none": nobody, everything
	// goes into the inbox.
	// Default: "", the plugin sieve where it is listed and deliver is a mailbox; else nobody.
	Planner string `toml:"planner"`
	// Folders says where mail goes that a planner files into a folder, at a server behind us:
	// "inbox" or "detail" (to user+folder).
	// Default: "inbox"
	Folders string `toml:"folders"`
	// Postmaster gets mail for postmaster at this domain, if there is no such account or alias.
	// Default: "", the postmaster of the gateway.
	Postmaster mail.Path `toml:"postmaster"`
	// CatchAll are the addresses that get mail for those that do not exist here; so does an
	// alias for "@" and the domain.
	// Default: []
	CatchAll []mail.Path `toml:"catch_all"`
	// Quota is what a mailbox may hold that has no quota of its own.
	// Default: "0B", no limit.
	Quota Size `toml:"quota"`
	// QuotaMessages is the same in messages.
	// Default: 0, no limit.
	QuotaMessages int `toml:"quota_messages"`

	// Stored says that it is not from the file but from the directory.
	Stored bool
}

// Callahead is about domains with recipients = "callahead". The server behind such a domain is
// asked about an address of which nothing is known, and what comes of mail for it is
// remembered.
type Callahead struct {
	// Keep is how long an address is known after the server last took it: for so long it is
	// taken also while that server is down.
	// Default: "7d"
	Keep Duration `toml:"keep"`
	// Refresh is the age from which on the server is asked again, in the background.
	// Default: "1d"
	Refresh Duration `toml:"refresh"`
	// KeepUnknown is how long an address that the server refused is refused without asking
	// again.
	// Default: "1h"
	KeepUnknown Duration `toml:"keep_unknown"`
	// Timeout is how long a client waits for the answer; then it gets 450. At most 2 minutes.
	// Default: "10s"
	Timeout Duration `toml:"timeout"`
	// Concurrency is how many questions a server is asked at a time.
	// Default: 5
	Concurrency int `toml:"concurrency"`
	// UnknownPerHour is how many addresses that do not exist a client may ask for in an hour;
	// then it gets 450 for all that the server would have to be asked about. 0: no limit.
	// Default: 50
	UnknownPerHour int `toml:"unknown_per_hour"`
}

// DNS is about name resolution.
type DNS struct {
	// Servers are resolvers, "host:port", tried in order. Empty: the resolver of the system.
	// Default: []
	Servers Strings `toml:"servers"`
	// ClientNames has the name of each client looked up, for Received fields and plugins. It
	// counts if it leads back to the client's address. A session waits for it for 3 seconds at most.
	// Default: true
	ClientNames bool `toml:"client_names"`
}

// Destination says how to talk to next hops.
type Destination struct {
	// Match is a domain, "*.example.com" (every name below it), an address or "*"; it is
	// compared with the recipient's domain and with the next hop.
	// Default: none, it is required.
	Match string `toml:"match"`
	// TLS is "opportunistic" (without proof of the name if need be) or "required" (with a
	// certificate for the name, or no delivery).
	// Default: "opportunistic"
	TLS string `toml:"tls"`
	// CAFile is a PEM file with the only authorities believed.
	// Default: ""
	CAFile string `toml:"ca_file"`
	// Pin is "sha256:" and the hex digest of the only certificate believed.
	// Default: ""
	Pin string `toml:"pin"`
	// AllowPrivate permits next hops on loopback or private addresses although they were
	// found through DNS.
	// Default: false
	AllowPrivate bool `toml:"allow_private"`
}

// Queue is about retries.
type Queue struct {
	// RetryFirst is the time before the second attempt; it doubles each time.
	// Default: "5m"
	RetryFirst Duration `toml:"retry_first"`
	// RetryMax is the longest time between two attempts.
	// Default: "4h"
	RetryMax Duration `toml:"retry_max"`
	// Lifetime is how long delivery is tried before the message is returned.
	// Default: "5d"
	Lifetime Duration `toml:"lifetime"`
	// JournalLifetime is the same for journal reports, which are to be in an archive without a gap.
	// Default: "30d"
	JournalLifetime Duration `toml:"journal_lifetime"`
	// DelayWarning is when the sender is told that the message still waits, ten times an hour at
	// most. "0s": never.
	// Default: "4h"
	DelayWarning Duration `toml:"delay_warning"`
	// Concurrency is how many deliveries run at a time. Copies, journal reports and reports of
	// the gateway itself may each have a quarter of them, one at least.
	// Default: 100
	Concurrency int `toml:"concurrency"`
	// ConcurrencyPerDestination is how many of them go to the same next hop. Copies, journal
	// reports and reports of the gateway itself are counted there by themselves: each may have a
	// quarter as many besides, one at least.
	// Default: 20
	ConcurrencyPerDestination int `toml:"concurrency_per_destination"`
}

// Quarantine is about mail that plugins want held.
type Quarantine struct {
	// Keep is how long it is kept; then it is deleted, and nobody is told.
	// Default: "30d"
	Keep Duration `toml:"keep"`
	// Digest is "daily" (recipients get a list of what is held for them, once a day) or "off".
	// Default: "off"
	Digest string `toml:"digest"`
	// DigestTime is when the list is sent, "hour:minute", in the time zone of the gateway.
	// Default: "07:00"
	DigestTime string `toml:"digest_time"`
	// DigestDomains are the domains whose recipients get the list. Empty: all of ours.
	// Default: []
	DigestDomains []mail.Domain `toml:"digest_domains"`
}

// Clock is DigestTime in parts.
func (q *Quarantine) Clock() (hour, minute, second int, err error) {
	t, err := time.Parse("15:04", q.DigestTime)
	if err != nil {
		t, err = time.Parse("15:04:05", q.DigestTime)
	}
	return t.Hour(), t.Minute(), t.Second(), err
}

// Log is about log lines, which go to standard error.
type Log struct {
	// Format is "text" or "json".
	// Default: "text"
	Format string `toml:"format"`
	// Level is the least serious line written: "debug", "info", "warn" or "error".
	// Default: "info"
	Level string `toml:"level"`
}

// Admin is the HTTP interface.
type Admin struct {
	// Address of web UI, API and metrics, "host:port". Not available in this version; commands
	// use the unix socket run/control.sock in data_dir.
	// Default: ""
	Address string `toml:"address"`
}

// Cluster joins several gateways.
type Cluster struct {
	// Database is the PostgreSQL database they share. Not available in this version.
	// Default: ""
	Database string `toml:"database"`
}
