package peertest

import (
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Slapd is a running OpenLDAP server for dc=corp,dc=example, with a certificate for 127.0.0.1 and localhost.
// What is in it is for [SlapdReader] to read, and for nobody else; who binds with a name and no password is
// nobody, which succeeds.
type Slapd struct {
	*Engine
	LDAP  string // URL: with StartTLS
	LDAPS string // URL
	LDAPI string // URL of a unix socket
	CA    string // file with the certificate
}

// SlapdReader may read everything but passwords, and has the password SlapdPassword.
const (
	SlapdReader   = "cn=reader,dc=corp,dc=example"
	SlapdPassword = "reader's secret"
)

// StartSlapd starts one with entries in LDIF, below dc=corp,dc=example and in an order that parents
// come first.
func StartSlapd(t testing.TB, ldif string) *Slapd {
	t.Helper()
	program, add := Program(t, "slapd"), Program(t, "slapadd")
	s := &Slapd{}
	s.Engine = launch(t, func(e *Engine) {
		plain, secure, socket := port(t), port(t), filepath.Join(e.dir, "ldapi")
		s.LDAP, s.LDAPS, s.LDAPI = "ldap://"+plain, "ldaps://"+secure, "ldapi://"+url.PathEscape(socket)
		s.CA = filepath.Join(e.dir, "cert.pem")
		certify(t, s.CA, filepath.Join(e.dir, "key.pem"))
		config := filepath.Join(e.dir, "slapd.conf")
		file(t, filepath.Join(e.dir, "data", "DB_CONFIG"), "")
		file(t, config, strings.ReplaceAll(slapdConfig, "DIR", e.dir))
		entries := filepath.Join(e.dir, "entries.ldif")
		file(t, entries, fmt.Sprintf(slapdEntries, SlapdReader, SlapdPassword)+ldif)
		if out, err := exec.Command(add, "-f", config, "-l", entries).CombinedOutput(); err != nil {
			t.Fatalf("slapadd: %v\n%s", err, out)
		}
		e.command = []string{program, "-d", "0", "-f", config, "-h", strings.Join([]string{s.LDAP, s.LDAPS, s.LDAPI}, " ")}
		e.address = []string{plain, secure, socket}
	})
	return s
}

// slapdConfig has the schemas that people use for mail; two attributes come from qmail's.
const slapdConfig = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/misc.schema
attributetype ( 1.3.6.1.4.1.7914.1.2.1.2 NAME 'mailAlternateAddress'
  EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{256} )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.9 NAME 'mailForwardingAddress'
  EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{256} )
objectclass ( 1.3.6.1.4.1.7914.1.2.2.1 NAME 'mailPerson' SUP top AUXILIARY
  MAY ( mail $ mailAlternateAddress $ mailForwardingAddress ) )
allow bind_anon_cred
pidfile DIR/slapd.pid
TLSCertificateFile DIR/cert.pem
TLSCertificateKeyFile DIR/key.pem
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
maxsize 16777216
suffix "dc=corp,dc=example"
directory DIR/data
index objectClass,mail eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=reader,dc=corp,dc=example" read by * auth
`

const slapdEntries = `dn: dc=corp,dc=example
objectClass: dcObject
objectClass: organization
o: corp
dc: corp

dn: %s
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: %s

`
