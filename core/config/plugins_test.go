package config

import (
	"strings"
	"testing"
)

// Plugins that domains name are listed, and fit what else the domain says.
func TestPluginsOfDomains(t *testing.T) {
	for _, tt := range []struct{ domain, wrong string }{
		{"deliver = 'maildir'\nplanner = 'bcc'", ""},
		{"deliver = 'maildir'\ndirectory = 'bcc'", ""},
		{"deliver = 'maildir'\nplanner = 'sieve'", `there is no plugin "sieve"`},
		{"deliver = 'maildir'\ndirectory = 'ldap'", `there is no plugin "ldap"`},
		{"deliver = 'smtp://192.0.2.1:25'\nplanner = 'bcc'\nfolders = 'detail'", ""},
		{"deliver = 'smtp://192.0.2.1:25'\nfolders = 'both'", `domain[0].folders`},
		{"deliver = 'maildir'\nplanner = 'none'", ""},
		{"deliver = 'maildir'\nrecipients = 'any'\ndirectory = 'bcc'", `has to be "directory"`},
	} {
		_, err := Parse("postern.toml", []byte("hostname = 'mx.example.org'\ndata_dir = '/tmp'\n[[listener]]\naddress = '127.0.0.1:0'\nrole = 'mx'\n[[domain]]\nname = 'example.org'\n"+
			tt.domain+"\n[[plugin]]\nname = 'bcc'\n"))
		if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
			t.Errorf("%q: %v, want %q", tt.domain, err, tt.wrong)
		}
	}
}
