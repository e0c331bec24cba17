package tlsconf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Options says where the certificate is.
type Options struct {
	Certificate string // PEM file, leaf first; empty: a self-signed one
	Key         string // PEM file
	DataDir     string // for the self-signed one
	Hostname    string // the name that clients will ask for
	Log         *slog.Logger
	Now         func() time.Time // nil: time.Now
}

// Server is the certificate for our listeners.
type Server struct {
	opt     Options
	current atomic.Pointer[tls.Certificate]

	mu    sync.Mutex // for Reload
	stamp [2]stamp
}

// stamp tells one state of a file from another.
type stamp struct {
	size     int64
	modified time.Time
}

// Load reads the certificate, or makes one. An error names the file and says what to do.
func Load(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{opt: o}
	if (o.Certificate == "") != (o.Key == "") {
		return nil, errors.New("tls: certificate and key have to be set together")
	}
	if o.Certificate == "" {
		if err := s.selfSigned(); err != nil {
			return nil, fmt.Errorf("tls: self-signed certificate: %w", err)
		}
		o.Log.Warn("no TLS certificate is configured: using a self-signed one, which clients that verify will refuse", "file", s.opt.Certificate)
	}
	s.stamp = s.stamps()
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files again. After an error the certificate in use stays.
func (s *Server) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stamp = s.stamps()
	if err := s.load(); err != nil {
		s.opt.Log.Error("TLS certificate not reloaded, keeping the one in use", "error", err.Error())
		return err
	}
	s.opt.Log.Info("TLS certificate reloaded", "file", s.opt.Certificate, "expires", s.Certificate().Leaf.NotAfter)
	return nil
}

// Watch reloads when the files have changed, looking at them every interval, until ctx
// ends. Renewed certificates are thus used without a signal.
func (s *Server) Watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.mu.Lock()
			changed := s.stamp != s.stamps()
			s.mu.Unlock()
			if changed {
				s.Reload() // says itself what went wrong
			}
		}
	}
}

// Certificate is the one in use, with its Leaf.
func (s *Server) Certificate() *tls.Certificate { return s.current.Load() }

// Config returns a configuration for one listener. It follows reloads. Each call returns
// one with session tickets of its own, so that a session of one listener is not resumed at
// another. Cipher suites are those of crypto/tls, which leaves out what is broken.
func (s *Server) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // RFC 8996
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.current.Load(), nil
		},
	}
}

func (s *Server) load() error {
	if err := checkKeyMode(s.opt.Key); err != nil {
		return err
	}
	c, err := tls.LoadX509KeyPair(s.opt.Certificate, s.opt.Key)
	if err != nil {
		return fmt.Errorf("tls: certificate %s with key %s: %w", s.opt.Certificate, s.opt.Key, err)
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return fmt.Errorf("tls: certificate %s: %w", s.opt.Certificate, err)
		}
	}
	s.warn(c.Leaf)
	s.current.Store(&c)
	return nil
}

// warn says what clients that verify will not like. It is no error: a server with an
// expired certificate still takes mail.
func (s *Server) warn(leaf *x509.Certificate) {
	now := s.opt.Now()
	file := slog.String("file", s.opt.Certificate)
	switch {
	case now.After(leaf.NotAfter):
		s.opt.Log.Warn("TLS certificate has expired", file, "expired", leaf.NotAfter)
	case now.Before(leaf.NotBefore):
		s.opt.Log.Warn("TLS certificate is not valid yet", file, "valid_from", leaf.NotBefore)
	case leaf.NotAfter.Sub(now) < 7*24*time.Hour:
		s.opt.Log.Warn("TLS certificate expires soon", file, "expires", leaf.NotAfter)
	}
	if err := leaf.VerifyHostname(s.opt.Hostname); s.opt.Hostname != "" && err != nil {
		s.opt.Log.Warn("TLS certificate does not name this host", file, "hostname", s.opt.Hostname)
	}
}

// checkKeyMode refuses a private key that everybody may read or the group may write. The group
// may read it: that is how a gateway without root shares a certificate with other services.
func checkKeyMode(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("tls: private key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("tls: private key %s has mode %04o, which lets others in; run: chmod 600 %s", file, mode, file)
	}
	return nil
}

func (s *Server) stamps() (out [2]stamp) {
	for i, file := range []string{s.opt.Certificate, s.opt.Key} {
		if info, err := os.Stat(file); err == nil {
			out[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	return out
}

// selfSigned sets the files to those of the self-signed certificate and sees to it that
// they are there and good.
func (s *Server) selfSigned() error {
	if s.opt.DataDir == "" {
		return errors.New("no data directory")
	}
	dir := filepath.Join(s.opt.DataDir, "tls")
	s.opt.Certificate = filepath.Join(dir, "self-signed.pem")
	s.opt.Key = filepath.Join(dir, "self-signed.key")
	if s.usable() {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return makeSelfSigned(s.opt)
}

// usable reports whether there is a self-signed certificate that will do for a while.
func (s *Server) usable() bool {
	c, err := tls.LoadX509KeyPair(s.opt.Certificate, s.opt.Key)
	if err != nil {
		return false
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	return err == nil && leaf.VerifyHostname(s.opt.Hostname) == nil && leaf.NotAfter.Sub(s.opt.Now()) > 30*24*time.Hour
}
