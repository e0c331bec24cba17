package peertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
)

// Dovecot is a running IMAP server. Every user name is one of its users, with the password
// [Dovecot.Password]; the master user [Dovecot.Master] may act for all, as "user*master"
// or with an authorization identity. Mail is in Maildirs that belong to nobody.
type Dovecot struct {
	*Engine
	IMAP     string // host:port, also with STARTTLS
	IMAPS    string // host:port, with TLS
	CA       string // file with the certificate, which is for localhost and 127.0.0.1
	Mail     string // the folder with the Maildirs
	Password string
	Master   string
	LogFile  string
}

// UID and GID of nobody, whose the Maildirs are.
const (
	DovecotUID = 65534
	DovecotGID = 65534
)

// DovecotOptions are what a test wants otherwise.
type DovecotOptions struct {
	// Path of a Maildir below Mail, in Dovecot's variables. Default: "%u".
	Path string
	// Location is the whole of mail_location; it goes before Path.
	Location string
	// More is added to the configuration.
	More string
}

// StartDovecot starts one. It needs root.
func StartDovecot(t testing.TB, o DovecotOptions) *Dovecot {
	t.Helper()
	program := Program(t, "dovecot")
	if os.Getuid() != 0 || !isFile("/usr/share/dovecot/protocols.d/imapd.protocol") {
		if os.Getenv("POSTERN_REQUIRE_PEERS") == "1" {
			t.Fatal("Dovecot needs root, and its imapd")
		}
		t.Skip("SKIP: Dovecot needs root, and its imapd")
	}
	if o.Path == "" {
		o.Path = "%u"
	}
	d := &Dovecot{Password: "secret-of-all", Master: "postern"}
	d.Engine = launch(t, func(e *Engine) {
		d.IMAP, d.IMAPS = port(t), port(t)
		d.Mail, d.CA, d.LogFile = filepath.Join(e.dir, "mail"), filepath.Join(e.dir, "cert.pem"), filepath.Join(e.dir, "log")
		if err := os.MkdirAll(d.Mail, 0o755); err != nil {
			t.Fatal(err)
		}
		os.Chmod(d.Mail, 0o755)
		os.Chown(d.Mail, DovecotUID, DovecotGID)
		certify(t, d.CA, filepath.Join(e.dir, "key.pem"))
		location := o.Location
		if location == "" {
			location = "maildir:" + d.Mail + "/" + o.Path
		}
		file(t, filepath.Join(e.dir, "master"), d.Master+":{PLAIN}"+d.Password+"-and-more::::::\n")
		file(t, filepath.Join(e.dir, "dovecot.conf"), fmt.Sprintf(dovecotConfig, e.dir, location, d.Password, d.IMAP[strings.LastIndexByte(d.IMAP, ':')+1:],
			d.IMAPS[strings.LastIndexByte(d.IMAPS, ':')+1:], DovecotUID, DovecotGID)+o.More)
		e.command = []string{program, "-F", "-c", filepath.Join(e.dir, "dovecot.conf")}
		e.address = []string{d.IMAP, d.IMAPS}
		t.Cleanup(func() {
			if t.Failed() {
				log, _ := os.ReadFile(d.LogFile)
				t.Logf("Dovecot's log: %s", log[max(0, len(log)-6000):])
			}
		})
	})
	return d
}

// MasterPassword is that of the master user.
func (d *Dovecot) MasterPassword() string { return d.Password + "-and-more" }

// Login returns a client that has logged in; it ends with the test.
func (d *Dovecot) Login(t testing.TB, user string) *imapclient.Client {
	t.Helper()
	conn, err := net.Dial("tcp", d.IMAP)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	c := imapclient.New(conn, nil)
	t.Cleanup(func() { c.Close() })
	if err := c.Login(user, d.Password).Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

const dovecotConfig = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
auth_verbose = yes
auth_failure_delay = 0
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = %[2]s
mail_max_userip_connections = 100
auth_mechanisms = plain login
auth_master_user_separator = *
passdb {
  driver = passwd-file
  args = %[1]s/master
  master = yes
}
passdb {
  driver = static
  args = password=%[3]s
}
userdb {
  driver = static
  args = uid=%[6]d gid=%[7]d home=%[1]s/mail/home-%%u allow_all_users=yes
}
service imap-login {
  inet_listener imap {
    port = %[4]s
  }
  inet_listener imaps {
    port = %[5]s
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
`

// certify writes a certificate that vouches for itself, and its key.
func certify(t testing.TB, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	file(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	file(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}
