package config

import "time"

// Defaults returns the configuration of a file that says nothing.
func Defaults() *Config {
	return &Config{
		Limits: Limits{
			MessageSize:          25 << 20,
			HeaderSize:           1 << 20,
			Recipients:           1000, // RFC 5321 §4.5.3.1.8 asks for at least 100.
			ReceivedHops:         100,  // RFC 5321 §6.3 asks for at least 100.
			Errors:               10,
			Connections:          500,
			ConnectionsPerClient: 50,
		},
		Auth: Auth{SenderLogin: "strict"},
		Callahead: Callahead{
			Keep: Duration(7 * day), Refresh: Duration(day), KeepUnknown: Duration(time.Hour),
			Timeout: Duration(10 * time.Second), Concurrency: 5, UnknownPerHour: 50,
		},
		Queue: Queue{
			RetryFirst:                Duration(5 * time.Minute),
			RetryMax:                  Duration(4 * time.Hour),
			Lifetime:                  Duration(5 * day),
			JournalLifetime:           Duration(30 * day),
			DelayWarning:              Duration(4 * time.Hour),
			Concurrency:               100,
			ConcurrencyPerDestination: 20,
		},
		DNS:        DNS{ClientNames: true},
		SRS:        SRS{Enabled: true, Lifetime: Duration(21 * day)},
		Quarantine: Quarantine{Keep: Duration(30 * day), Digest: "off", DigestTime: "07:00"},
		Log:        Log{Format: "text", Level: "info"},
	}
}

// defaulter is a table that occurs many times: it starts from its defaults, which may
// depend on other keys of the same table.
type defaulter interface{ setDefaults(table map[string]any) }

func (l *Listener) setDefaults(table map[string]any) {
	*l = Listener{TLS: "starttls", Auth: "off"}
	switch table["role"] {
	case "submission":
		l.Auth, l.DSN = "required", true
	case "lmtp":
		l.TLS = "none"
	case "reinjection":
		l.TLS, l.Clients = "none", Strings{"127.0.0.0/8", "::1"}
	}
}

func (r *AccessRule) setDefaults(map[string]any)  { *r = AccessRule{Action: "reject"} }
func (d *Domain) setDefaults(map[string]any)      { *d = Domain{Recipients: "directory", Folders: "inbox"} }
func (d *Destination) setDefaults(map[string]any) { *d = Destination{TLS: "opportunistic"} }

func (p *Plugin) setDefaults(map[string]any) {
	*p = Plugin{Timeout: Duration(20 * time.Second), OnFailure: OnFailure{Default: "tempfail"}}
}
