package config

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

// The plugin sieve plans for mailboxes wherever it is listed, and for others when it is named.
func TestPlannerOfDomains(t *testing.T) {
	for _, tt := range []struct{ domain, plugin, want string }{
		{"deliver = 'maildir'", "name = 'sieve'", "sieve"},
		{"deliver = 'maildir'", "name = 'rules'\nuse = 'sieve'", "rules"},
		{"deliver = 'maildir'", "name = 'sieve'\ncommand = '/bin/true'", ""},
		{"deliver = 'maildir'", "name = 'bcc'", ""},
		{"deliver = 'maildir'\nplanner = 'none'", "name = 'sieve'", ""},
		{"deliver = 'maildir'\nplanner = 'bcc'", "name = 'sieve'\n[[plugin]]\nname = 'bcc'", "bcc"},
		{"deliver = 'smtp://192.0.2.1:25'", "name = 'sieve'", ""},
		{"deliver = 'smtp://192.0.2.1:25'\nplanner = 'sieve'", "name = 'sieve'", "sieve"},
	} {
		c, err := Parse("postern.toml", []byte("hostname = 'mx.example.org'\ndata_dir = '/tmp'\n[[listener]]\naddress = '127.0.0.1:0'\nrole = 'mx'\n[[domain]]\nname = 'example.org'\n"+
			tt.domain+"\n[[plugin]]\n"+tt.plugin+"\n"))
		if err != nil {
			t.Errorf("%q: %v", tt.domain, err)
		} else if got := c.Domains[0].Planner; got != tt.want {
			t.Errorf("%q with %q: planner %q, want %q", tt.domain, tt.plugin, got, tt.want)
		} else if again, err := c.WithDomains([]Domain{{Name: mail.MustPath("x@example.net").Domain, Deliver: c.Domains[0].Deliver}, {Name: mail.MustPath("x@example.com").Domain,
			Deliver: c.Domains[0].Deliver, Planner: "none"}}); err != nil || again.Domains[0].Planner != tt.want || again.Domains[2].Planner != "" ||
			!strings.Contains(tt.domain, "planner") && again.Domains[1].Planner != tt.want {
			t.Errorf("%q with %q, stored: %v, %+v", tt.domain, tt.plugin, err, again)
		}
	}
}
