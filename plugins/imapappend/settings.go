package imapappend

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin: the server for all domains, and others for some.
type Settings struct {
	Server
	// Domain has servers for single domains, by name; where nothing is said, what is said
	// above holds. Default: none.
	Domain map[string]Server `toml:"domain"`
	// Connections is how many deliveries may be under way at once, to all servers together;
	// as many connections are kept for the next ones. Default: 10.
	Connections int `toml:"connections"`
}

// Server is an IMAP server and how to log in there.
type Server struct {
	// Address is "host:port". Required.
	Address string `toml:"address"`
	// TLS is "implicit", "starttls", or "none", which only a server on this machine may
	// have. Default: "implicit".
	TLS string `toml:"tls"`
	// ServerName is the name in the server's certificate. Default: the host of the address.
	ServerName string `toml:"server_name"`
	// CAFile has the certificates that the server's one has to lead to, in PEM. Default: "",
	// those of the system.
	CAFile string `toml:"ca_file"`
	// Username is who logs in: a master user, who may act for all. Required.
	Username string `toml:"username"`
	// PasswordFile has the password; nobody but its owner may read it. Required.
	PasswordFile string `toml:"password_file"`
	// Login is how the mailbox is named at the log-in: "authzid", as the authorization
	// identity of SASL PLAIN, or a template for the user name, "{user}*{username}". Default:
	// "authzid".
	Login string `toml:"login"`
	// User is what the server calls a user, with the placeholders {address}, {local} and
	// {domain}. Default: "{address}".
	User string `toml:"user"`
	// CreateFolders is "always" for folders that are made when they do not exist, or "asked"
	// if only a script's :create makes them. Default: "always".
	CreateFolders string `toml:"create_folders"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{Connections: 10, Server: Server{TLS: "implicit", Login: "authzid", User: "{address}", CreateFolders: "always"}}
}

// inherit fills in what is not said.
func (s Server) inherit(from Server) Server {
	for _, f := range []struct {
		to   *string
		from string
	}{{&s.Address, from.Address}, {&s.TLS, from.TLS}, {&s.ServerName, from.ServerName}, {&s.CAFile, from.CAFile}, {&s.Username, from.Username},
		{&s.PasswordFile, from.PasswordFile}, {&s.Login, from.Login}, {&s.User, from.User}, {&s.CreateFolders, from.CreateFolders}} {
		if *f.to == "" {
			*f.to = f.from
		}
	}
	return s
}

// server is a Server that was checked.
type server struct {
	Server
	tls *tls.Config // nil: none
}

func newServer(s Server, dataDir string) (*server, error) {
	if s.Address == "" {
		return nil, errors.New("address is missing: the IMAP server, as host:port")
	}
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("address %q is not host:port", s.Address)
	}
	if s.Username == "" || strings.ContainsAny(s.Username, "\x00\r\n") {
		return nil, errors.New("username is missing: who logs in?")
	}
	if s.PasswordFile == "" {
		return nil, errors.New("password_file is missing")
	}
	s.PasswordFile = below(dataDir, s.PasswordFile)
	out := &server{Server: s}
	if _, err := out.password(); err != nil {
		return nil, err
	}
	if !strings.Contains(s.User, "{address}") && !strings.Contains(s.User, "{local}") {
		return nil, fmt.Errorf("user %q has neither {address} nor {local}: all recipients would share a mailbox", s.User)
	}
	if s.Login != "authzid" && !strings.Contains(s.Login, "{user}") {
		return nil, fmt.Errorf(`login %q is neither "authzid" nor a template with {user}`, s.Login)
	}
	if s.CreateFolders != "always" && s.CreateFolders != "asked" {
		return nil, fmt.Errorf(`create_folders %q is neither "always" nor "asked"`, s.CreateFolders)
	}
	if s.TLS == "none" {
		if !isLoopback(host) {
			return nil, fmt.Errorf("tls = \"none\": %s is not on this machine, and the password would cross the network in the clear", host)
		}
		return out, nil
	}
	if s.TLS != "implicit" && s.TLS != "starttls" {
		return nil, fmt.Errorf(`tls %q is not "implicit", "starttls" or "none"`, s.TLS)
	}
	out.tls = &tls.Config{ServerName: s.ServerName, MinVersion: tls.VersionTLS12, NextProtos: []string{"imap"}}
	if s.ServerName == "" {
		out.tls.ServerName = host
	}
	if s.CAFile != "" {
		pem, err := os.ReadFile(below(dataDir, s.CAFile))
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		out.tls.RootCAs = x509.NewCertPool()
		if !out.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s has no certificate in PEM", s.CAFile)
		}
	}
	return out, nil
}

func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// password reads the file: it may have changed since.
func (s *server) password() (string, error) {
	fi, err := os.Stat(s.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	if fi.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("password_file: %s may be read by everybody; run: chmod 600 %[1]s", s.PasswordFile)
	}
	b, err := os.ReadFile(s.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	password := strings.TrimRight(string(b), "\r\n")
	if password == "" || strings.ContainsAny(password, "\x00\r\n") {
		return "", fmt.Errorf("password_file: %s has no password on one line", s.PasswordFile)
	}
	return password, nil
}

// user is what the server calls the owner of a mailbox.
func (s *server) user(to mail.Path) (string, error) {
	to = to.Fold()
	user := strings.NewReplacer("{address}", to.String(), "{local}", to.Local, "{domain}", to.Domain.String()).Replace(s.User)
	if strings.ContainsAny(user, "\x00\r\n") {
		return "", fmt.Errorf("the address %q cannot be a user there", to)
	}
	return user, nil
}

// identity is who logs in, for whom.
func (s *server) identity(user string) (authzid, authcid string) {
	if s.Login == "authzid" {
		return user, s.Username
	}
	return "", strings.NewReplacer("{user}", user, "{username}", s.Username).Replace(s.Login)
}
