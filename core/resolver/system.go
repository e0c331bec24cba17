package resolver

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// The system's files are looked at again after this long.
const recheck = 5 * time.Second

const maxSystemFile = 1 << 20

// watched rereads a file when it has changed.
type watched struct {
	mu      sync.Mutex
	checked time.Time
	stamp   time.Time
	size    int64
}

// changed returns the content of the file if it is new, else nil. The caller holds mu.
func (w *watched) changed(path string) []byte {
	if now := time.Now(); now.Sub(w.checked) < recheck {
		return nil
	} else {
		w.checked = now
	}
	st, err := os.Stat(path)
	if err != nil || st.Size() > maxSystemFile || st.ModTime().Equal(w.stamp) && st.Size() == w.size {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	w.stamp, w.size = st.ModTime(), st.Size()
	return append(b, '\n')
}

// resolvFile is /etc/resolv.conf.
type resolvFile struct {
	watched
	path string
	list []string
}

// servers are those of the file; none: the one on this host, as resolv.conf(5) says.
func (f *resolvFile) servers() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.changed(f.path); b != nil {
		f.list = nil
		if conf, err := dns.ClientConfigFromReader(bytes.NewReader(b)); err == nil {
			for _, s := range conf.Servers[:min(len(conf.Servers), 3)] {
				f.list = append(f.list, net.JoinHostPort(s, conf.Port))
			}
		}
	}
	if len(f.list) == 0 {
		return []string{"127.0.0.1:53"}
	}
	return f.list
}

// hostsFile is /etc/hosts.
type hostsFile struct {
	watched
	path  string
	names map[string][]netip.Addr
}

func (f *hostsFile) lookup(name string) []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.changed(f.path); b != nil {
		f.names = parseHosts(string(b))
	}
	return f.names[name]
}

// parseHosts reads hosts(5): an address and its names on each line. IPv4 comes first.
func parseHosts(text string) map[string][]netip.Addr {
	names := make(map[string][]netip.Addr)
	for _, six := range []bool{false, true} {
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "#")
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			a, err := netip.ParseAddr(fields[0])
			if err != nil || bogus(a) || a.Is6() != six {
				continue
			}
			for _, name := range fields[1:] {
				names[plain(name)] = append(names[plain(name)], a)
			}
		}
	}
	return names
}
