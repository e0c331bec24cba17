package ldap

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

const people = `dn: ou=people,dc=corp,dc=example
objectClass: organizationalUnit
ou: people

dn: uid=carol,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
objectClass: mailPerson
uid: carol
cn: Carol
sn: C
mail: Carol@corp.example
mailAlternateAddress: c.smith@corp.example
mailAlternateAddress: office@corp.example
userPassword: secret of carol

dn: uid=dave,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: dave
cn: Dave (Sales)*
sn: D
mail: dave@corp.example
mail: d.jones@corp.example
userPassword: secret of dave

dn: uid=nopass,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: nopass
cn: Nopass
sn: N
mail: nopass@corp.example

dn: uid=gone,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
objectClass: mailPerson
uid: gone
cn: Gone
sn: G
mail: gone@corp.example
mailForwardingAddress: gone@elsewhere.example
mailForwardingAddress: not an address
userPassword: secret of gone

dn: uid=both,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
objectClass: mailPerson
uid: both
cn: Both
sn: B
mail: both@corp.example
mailForwardingAddress: both@corp.example
mailForwardingAddress: both@elsewhere.example

dn: cn=staff,dc=corp,dc=example
objectClass: groupOfNames
objectClass: mailPerson
cn: staff
mail: staff@corp.example
member: uid=carol,ou=people,dc=corp,dc=example
member: uid=dave,ou=people,dc=corp,dc=example
member: uid=nobody,ou=people,dc=corp,dc=example
member: cn=staff,dc=corp,dc=example
member: cn=outside,dc=corp,dc=example

dn: cn=outside,dc=corp,dc=example
objectClass: nisMailAlias
objectClass: mailPerson
cn: outside
mail: outside@corp.example
rfc822MailMember: x@elsewhere.example
rfc822MailMember: dave@corp.example

dn: cn=empty,dc=corp,dc=example
objectClass: nisMailAlias
objectClass: mailPerson
cn: empty
mail: empty@corp.example
`

// configured is a plugin with settings.
func configured(t testing.TB, settings string) *Plugin {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "reader"), []byte(peertest.SlapdPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := New()
	if err := p.Configure(context.Background(), sdk.Config{Settings: []byte(settings), DataDir: dir}); err != nil {
		t.Fatal(err)
	}
	return p
}

// settings are for a server at url.
func settings(url string) string {
	return fmt.Sprintf("url = %s\nbase = \"dc=corp,dc=example\"\nbind_dn = %q\npassword_file = \"reader\"\n", url, peertest.SlapdReader)
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

func resolve(t testing.TB, p *Plugin, address string) string {
	t.Helper()
	targets, err := p.Resolve(context.Background(), mail.MustPath(address))
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	var out []string
	for _, a := range targets {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
