package smtpd

import (
	"net/netip"
	"path/filepath"
	"testing"
)

// A listener may be for some networks only; a unix socket has permissions for that.
func TestClients(t *testing.T) {
	only := func(networks ...string) func(*Options) {
		return func(o *Options) {
			for _, n := range networks {
				o.Clients = append(o.Clients, netip.MustParsePrefix(n))
			}
		}
	}
	r := newRig(t, only("192.0.2.0/24"))
	c := r.dial()
	c.expect("554 5.7.1")
	c.closed()
	r = newRig(t, only("192.0.2.0/24", "127.0.0.0/8"))
	r.dial().expect("220")

	// The client counts, not the proxy; nobody is nobody.
	proxied := newRig(t, only("127.0.0.0/8"), func(o *Options) { o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for _, header := range []string{"PROXY TCP4 192.0.2.7 127.0.0.1 4096 25\r\n", "PROXY UNKNOWN\r\n"} {
		c := proxied.dial()
		c.send(header)
		c.expect("554 5.7.1")
		c.closed()
	}
	local := startRig(t, &rig{network: "unix", addr: filepath.Join(t.TempDir(), "smtp")}, only("192.0.2.0/24"))
	local.dial().expect("220")
}
