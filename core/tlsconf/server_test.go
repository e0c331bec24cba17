package tlsconf

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func logTo(b io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// pair writes a certificate for host, made at the time now, and returns its files.
func pair(t *testing.T, dir, host string, now time.Time) (cert, key string) {
	t.Helper()
	o := Options{Hostname: host, Certificate: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem"), Now: func() time.Time { return now }}
	if err := makeSelfSigned(o); err != nil {
		t.Fatal(err)
	}
	return o.Certificate, o.Key
}

// served makes a handshake with the configuration and returns the certificate it shows.
func served(t *testing.T, config *tls.Config, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go tls.Server(a, config).Handshake()
	client.InsecureSkipVerify = true
	c := tls.Client(b, client)
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

func TestSelfSigned(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	o := Options{DataDir: dir, Hostname: "mx.test", Log: logTo(&log)}
	first, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "self-signed") {
		t.Errorf("no warning: %s", log.String())
	}
	leaf, err := served(t, first.Config(), &tls.Config{})
	if err != nil || leaf.VerifyHostname("mx.test") != nil {
		t.Fatalf("%v %v", leaf, err)
	}
	for name, mode := range map[string]os.FileMode{"tls": 0o700 | os.ModeDir, "tls/self-signed.key": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	again, err := Load(o)
	if err != nil || !again.Certificate().Leaf.Equal(first.Certificate().Leaf) {
		t.Errorf("not kept: %v", err)
	}
	o.Hostname = "mx2.test"
	if other, err := Load(o); err != nil || other.Certificate().Leaf.VerifyHostname("mx2.test") != nil {
		t.Errorf("not made anew for another name: %v", err)
	}
	o.Now = func() time.Time { return time.Now().Add(lifetime - 24*time.Hour) }
	if late, err := Load(o); err != nil || !late.Certificate().Leaf.NotAfter.After(time.Now().Add(lifetime)) {
		t.Errorf("not made anew before it ends: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tls/self-signed.pem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(o); err != nil {
		t.Errorf("not made anew when damaged: %v", err)
	}
}

func TestT14ReloadKeepsOldOnError(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	cert, key := pair(t, dir, "one.test", time.Now())
	s, err := Load(Options{Certificate: cert, Key: key, Hostname: "one.test", Log: logTo(&log)})
	if err != nil {
		t.Fatal(err)
	}
	config := s.Config()
	name := func() string {
		leaf, err := served(t, config, &tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return leaf.DNSNames[0]
	}
	good, _ := os.ReadFile(cert)
	for _, broken := range []string{"", "garbage", string(good[:len(good)/2])} {
		os.WriteFile(cert, []byte(broken), 0o600)
		if s.Reload() == nil || name() != "one.test" {
			t.Errorf("%.20q: served %s", broken, name())
		}
	}
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), cert) {
		t.Errorf("log: %s", log.String())
	}
	pair(t, dir, "two.test", time.Now())
	if err := s.Reload(); err != nil || name() != "two.test" {
		t.Errorf("good file not used: %v, %s", err, name())
	}
}

func TestT15KeyMode(t *testing.T) {
	cert, key := pair(t, t.TempDir(), "mx.test", time.Now())
	for _, mode := range []os.FileMode{0o644, 0o604, 0o620, 0o660} {
		os.Chmod(key, mode)
		_, err := Load(Options{Certificate: cert, Key: key})
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+key) {
			t.Errorf("%o: %v", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o400, 0o640, 0o440} {
		os.Chmod(key, mode)
		if _, err := Load(Options{Certificate: cert, Key: key}); err != nil {
			t.Errorf("%o: %v", mode, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	now := time.Now()
	for want, made := range map[string]time.Time{"has expired": now.Add(-lifetime - time.Hour), "not valid yet": now.Add(48 * time.Hour), "expires soon": now.Add(-lifetime + time.Hour)} {
		var log bytes.Buffer
		cert, key := pair(t, t.TempDir(), "mx.test", made)
		if _, err := Load(Options{Certificate: cert, Key: key, Hostname: "other.test", Log: logTo(&log)}); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if !strings.Contains(log.String(), want) || !strings.Contains(log.String(), "does not name this host") {
			t.Errorf("%s: %s", want, log.String())
		}
	}
}

func TestFaults(t *testing.T) {
	cert, key := pair(t, t.TempDir(), "mx.test", time.Now())
	_, otherKey := pair(t, t.TempDir(), "mx.test", time.Now())
	for _, o := range []Options{{Certificate: cert}, {Key: key}, {Certificate: cert, Key: "/no/such"}, {Certificate: cert, Key: otherKey}, {}} {
		if _, err := Load(o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
}

// TestT09OldProtocols: TLS 1.0 and 1.1 are refused, 1.2 and 1.3 are not.
func TestT09OldProtocols(t *testing.T) {
	cert, key := pair(t, t.TempDir(), "mx.test", time.Now())
	s, err := Load(Options{Certificate: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	for version, good := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		if _, err := served(t, s.Config(), &tls.Config{MinVersion: version, MaxVersion: version}); (err == nil) != good {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

// TestWatch: a changed file is used without anybody asking.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, dir, "one.test", time.Now().Add(-time.Minute))
	s, err := Load(Options{Certificate: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Watch(ctx, time.Millisecond) })
	defer wg.Wait()
	defer cancel()
	pair(t, dir, "two.test", time.Now())
	for end := time.Now().Add(time.Minute); s.Certificate().Leaf.DNSNames[0] != "two.test"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not reloaded")
		}
	}
}
