package ldap

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/plugins/internal/setting"
)

// Settings of the plugin.
type Settings struct {
	// URL are the servers, tried in order: "ldap://host:389", "ldaps://host:636" or
	// "ldapi:///path/of/socket". Required.
	URL setting.List `toml:"url"`
	// StartTLS protects ldap:// connections. Default: false.
	StartTLS bool `toml:"starttls"`
	// CAFile has the only authorities believed, in PEM. Default: the system's.
	CAFile string `toml:"ca_file"`
	// Cleartext permits ldap:// without TLS to other machines. Default: false.
	Cleartext bool `toml:"cleartext"`
	// BindDN is who the plugin is to the server, with the password in PasswordFile. Default: nobody.
	BindDN string `toml:"bind_dn"`
	// PasswordFile has the password; relative to the gateway's data directory.
	PasswordFile string `toml:"password_file"`
	// Base is where searches begin. Required.
	Base string `toml:"base"`
	// Filter finds what an address stands for: %a is the address, %u its local part, %d its domain.
	Filter string `toml:"filter"`
	// LoginFilter finds who logs in. Default: the account with that address.
	LoginFilter string `toml:"login_filter"`
	// Address is the attribute with an account's own address.
	Address string `toml:"address"`
	// Forward are attributes with the addresses to which mail is sent on.
	Forward []string `toml:"forward"`
	// Members are attributes of groups with the names (DN) of members, MemberAddresses those
	// with addresses of members.
	Members         []string `toml:"members"`
	MemberAddresses []string `toml:"member_addresses"`
	// Groups are the object classes of groups: one without members is not a mailbox.
	Groups []string `toml:"groups"`
	// Delimiter begins a subaddress; "": there are none.
	Delimiter string `toml:"delimiter"`
	// Timeout is for one question, all servers together.
	Timeout time.Duration `toml:"timeout"`
	// Connections are how many there may be to a server, for searches and for log-ins each.
	Connections int `toml:"connections"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{
		Filter:          "(|(mail=%a)(mailAlternateAddress=%a)(mailLocalAddress=%a)(proxyAddresses=smtp:%a))",
		LoginFilter:     "(mail=%a)",
		Address:         "mail",
		Forward:         []string{"mailForwardingAddress", "mailRoutingAddress"},
		Members:         []string{"member", "uniqueMember"},
		MemberAddresses: []string{"rfc822MailMember", "mgrpRFC822MailMember"},
		Groups:          []string{"group", "groupOfNames", "groupOfUniqueNames", "nisMailAlias", "mailGroup"},
		Delimiter:       "+",
		Timeout:         10 * time.Second,
		Connections:     8,
	}
}

// check returns what is wrong with settings, all at once.
func (s *Settings) check() error {
	var faults []error
	fault := func(key, format string, a ...any) {
		faults = append(faults, fmt.Errorf("settings: %s: %s", key, fmt.Sprintf(format, a...)))
	}
	if len(s.URL) == 0 {
		fault("url", `is missing: "ldaps://ldap.example.org"`)
	}
	for _, u := range s.URL {
		if t, err := parseURL(u); err != nil {
			fault("url", "%q: %v", u, err)
		} else if !s.Cleartext && t.clear(s.StartTLS) {
			fault("url", "%q would send passwords in the clear: use ldaps://, or starttls = true, or say cleartext = true", u)
		}
	}
	if _, err := goldap.ParseDN(s.Base); err != nil || s.Base == "" {
		fault("base", `%q is not the name of an entry, such as "dc=example,dc=org"`, s.Base)
	}
	if _, err := goldap.ParseDN(s.BindDN); err != nil {
		fault("bind_dn", "%q is not the name of an entry", s.BindDN)
	}
	if (s.BindDN == "") != (s.PasswordFile == "") {
		fault("bind_dn", "needs password_file, and the other way round")
	}
	for key, f := range map[string]string{"filter": s.Filter, "login_filter": s.LoginFilter} {
		if _, err := parseFilter(f); err != nil {
			fault(key, "%q: %v", f, err)
		}
	}
	if s.Address == "" {
		fault("address", "is missing")
	}
	if len(s.Delimiter) > 1 {
		fault("delimiter", "has to be one character, or none")
	}
	if s.Timeout < 100*time.Millisecond || s.Timeout > time.Minute {
		fault("timeout", "has to be from 100ms to 1m")
	}
	if s.Connections < 1 || s.Connections > 100 {
		fault("connections", "has to be from 1 to 100")
	}
	return errors.Join(faults...)
}

// attributes are those that are asked for.
func (s *Settings) attributes() []string {
	all := append([]string{"objectClass", s.Address}, s.Forward...)
	return append(append(all, s.Members...), s.MemberAddresses...)
}

// place is a server as its URL says.
type place struct {
	network, address string
	host             string // for its certificate
	tls              bool   // from the first byte
}

func parseURL(s string) (place, error) {
	if socket, ok := strings.CutPrefix(s, "ldapi://"); ok {
		path, err := url.PathUnescape(socket) // ldapi://%2Frun%2Fldapi, as OpenLDAP writes it
		if err != nil || !filepath.IsAbs(path) {
			return place{}, errors.New("names no socket: ldapi:///run/slapd/ldapi")
		}
		return place{network: "unix", address: path}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return place{}, errors.New("is not a URL")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return place{}, errors.New("has more than a server in it; there are keys for the rest")
	}
	switch u.Scheme {
	case "ldap", "ldaps":
		if u.Path != "" && u.Path != "/" {
			return place{}, errors.New("has a path; say where searches begin with base")
		}
		p := place{network: "tcp", host: u.Hostname(), tls: u.Scheme == "ldaps"}
		port := u.Port()
		if port == "" {
			port = map[bool]string{false: "389", true: "636"}[p.tls]
		}
		if p.host == "" {
			return place{}, errors.New("names no host")
		}
		p.address = net.JoinHostPort(p.host, port)
		return p, nil
	}
	return place{}, errors.New("is none of ldap://, ldaps:// and ldapi://")
}

// clear reports whether passwords would be seen on the way.
func (p place) clear(startTLS bool) bool {
	if p.network == "unix" || p.tls || startTLS || p.host == "localhost" {
		return false
	}
	a, err := netip.ParseAddr(p.host)
	return err != nil || !a.Unmap().IsLoopback()
}

// tlsConfig is for a server called host.
func tlsConfig(roots *x509.CertPool, host string) *tls.Config {
	return &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12}
}

func readCAs(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM", file)
	}
	return pool, nil
}
