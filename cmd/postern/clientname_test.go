package main_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/emersion/go-milter"
	"github.com/miekg/dns"
)

// nameServer is a DNS server with these records, in master file form, that counts questions
// about addresses.
type nameServer struct {
	addr    string
	records []dns.RR
	silent  bool

	mu    sync.Mutex
	asked map[string]int // the names of PTR questions
}

func startNameServer(t testing.TB, silent bool, records ...string) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{addr: conn.LocalAddr().String(), silent: silent, asked: make(map[string]int)}
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		s.records = append(s.records, rr)
	}
	server, started := &dns.Server{PacketConn: conn, Handler: s}, make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go server.ActivateAndServe()
	<-started
	t.Cleanup(func() { server.Shutdown() })
	return s
}

// ServeDNS answers a question.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m, question := new(dns.Msg).SetReply(q), q.Question[0]
	m.Rcode = dns.RcodeNameError
	for _, rr := range s.records {
		if h := rr.Header(); strings.EqualFold(h.Name, question.Name) {
			m.Rcode = dns.RcodeSuccess
			if h.Rrtype == question.Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	if question.Qtype == dns.TypePTR {
		s.mu.Lock()
		s.asked[question.Name]++
		s.mu.Unlock()
	}
	if !s.silent {
		w.WriteMsg(m)
	}
}

// questions is how often it was asked for names, of how many addresses.
func (s *nameServer) questions() (n, addresses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.asked {
		n += k
	}
	return n, len(s.asked)
}

// config is that of a gateway which asks it, behind a proxy.
func (s *nameServer) config(sink *sink, more string) string {
	return strings.Replace(strangers, `role = "mx"`, "role = \"mx\"\nproxy_from = [\"127.0.0.0/8\"]", 1) + exampleTo(sink) + fmt.Sprintf("[dns]\nservers = [%q]\n", s.addr) + more
}

// namedClients: 192.0.2.7 and 2001:db8::7 are mail.sender.test. The others are not what they are
// called (.8), have a name that is none (.9 and .11), have the third of three names (.10), or none.
var namedClients = []string{
	"7.2.0.192.in-addr.arpa. 60 PTR Mail.Sender.test.", "mail.sender.test. 60 A 192.0.2.7", "mail.sender.test. 60 AAAA 2001:db8::7",
	"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 PTR mail.sender.test.",
	"8.2.0.192.in-addr.arpa. 60 PTR mail.sender.test.",
	`9.2.0.192.in-addr.arpa. 60 PTR x\013\010X-Evil:\0321.test.`, `x\013\010X-Evil:\0321.test. 60 A 192.0.2.9`,
	"10.2.0.192.in-addr.arpa. 60 PTR gone.test.", "10.2.0.192.in-addr.arpa. 60 PTR mail.sender.test.", "10.2.0.192.in-addr.arpa. 60 PTR ten.sender.test.", "ten.sender.test. 60 A 192.0.2.10",
	`11.2.0.192.in-addr.arpa. 60 PTR b\252cher.test.`, `b\252cher.test. 60 A 192.0.2.11`,
	"5.0.0.127.in-addr.arpa. 60 PTR me.test.", "me.test. 60 A 127.0.0.5",
}

// proxied sends a message from an address, and returns what arrives.
func (g *gateway) proxied(sink *sink, client string) arrived {
	g.t.Helper()
	family := "TCP4 " + client + " 127.0.0.1"
	if strings.Contains(client, ":") {
		family = "TCP6 " + client + " ::1"
	}
	n := len(sink.mail())
	c := connect(g.t, g.addr[0])
	c.send("PROXY " + family + " 1234 25\r\n")
	c.expect(220)
	c.cmd(250, "EHLO client.example")
	c.message("alice@a.test", []string{"bob@example.org"}, "Subject: x\r\n\r\nx")
	return sink.wait(g.t, "it", func(m []arrived) bool { return len(m) == n+1 })[n]
}

// curious is a milter that notes what it is told of the client.
type curious struct {
	milter.NoOpMilter
	told string
}

func (c *curious) Connect(host string, _ string, _ uint16, _ net.IP, m *milter.Modifier) (milter.Response, error) {
	c.told = host + " " + m.Macros["{client_name}"] + " " + m.Macros["{client_ptr}"] + " " + m.Macros["{client_resolve}"]
	return milter.RespContinue, nil
}

func (c *curious) Body(m *milter.Modifier) (milter.Response, error) {
	return milter.RespContinue, m.AddHeader("X-Client", c.told)
}

// A client's name is in the Received field, and gates at each stage and filters are told it: if
// it leads back to the client, and can be the name of a host.
func TestH05ClientNames(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	s := startNameServer(t, false, namedClients...)
	g := start(t, s.config(sink, puppet(t, "p", "", "tell = true")+withMilter("m", serveMilter(t, func() milter.Milter { return &curious{} }), "")))
	for client, want := range map[string]string{"192.0.2.7": "mail.sender.test", "::ffff:192.0.2.7": "mail.sender.test", "2001:db8::7": "mail.sender.test", "192.0.2.10": "ten.sender.test",
		"192.0.2.8": "", "192.0.2.9": "", "192.0.2.11": "", "192.0.2.12": "", "2001:db8::8": "", "127.0.0.5": ""} {
		m := g.proxied(sink, client)
		addr := strings.TrimPrefix(client, "::ffff:")
		if strings.Contains(addr, ":") {
			addr = "IPv6:" + addr
		}
		shown, told, by := "["+addr+"]", "unknown unknown unknown FAIL", ""
		switch {
		case want != "":
			shown, told, by = want+" "+shown, want+" "+want+" "+want+" OK", " by "+want
		case client == "192.0.2.8":
			told = "unknown unknown mail.sender.test FORGED"
		}
		if !strings.Contains(m.Data, "\r\nReceived: from client.example ("+shown+")\r\n\tby mx.example.org ") || strings.Contains(m.Data, "X-Evil") {
			t.Errorf("%s:\n%s", client, m.Data)
		}
		if !strings.Contains(m.Data, "\r\nX-Client: "+told+"\r\n") {
			t.Errorf("%s: the milter was not told %q:\n%s", client, told, m.Data)
		}
		stages := strings.Split(notes(m), "\n")
		for _, line := range stages {
			if !strings.HasSuffix(line, " notes, incoming"+by) {
				t.Errorf("%s: the gate noted %q", client, line)
			}
		}
		if len(stages) != 4 {
			t.Errorf("%s: %d stages", client, len(stages))
		}
	}
	if n, addresses := s.questions(); n != 8 || addresses != 8 { // not of loopback, and of the IPv4 address once
		t.Errorf("asked %d times of %d addresses", n, addresses)
	}
}

// Without plugins the Received field has the name as well; names can be switched off and on.
func TestClientNamesOff(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	s := startNameServer(t, false, namedClients...)
	g := start(t, s.config(sink, "client_names = false\n"))
	if m := g.proxied(sink, "192.0.2.7"); !strings.HasPrefix(m.Data, "Received: from client.example ([192.0.2.7])\r\n") {
		t.Errorf("off:\n%s", m.Data)
	}
	if n, _ := s.questions(); n != 0 {
		t.Errorf("asked %d times", n)
	}
	write(t, g.dir, s.config(sink, ""))
	g.cmd.Process.Signal(syscall.SIGHUP)
	g.log.wait(t, "configuration reloaded", nil)
	if m := g.proxied(sink, "192.0.2.7"); !strings.HasPrefix(m.Data, "Received: from client.example (mail.sender.test [192.0.2.7])\r\n") {
		t.Errorf("on:\n%s", m.Data)
	}
}

// A DNS that does not answer costs a client its name, and no mail; it is asked once for all of
// the client's sessions.
func TestClientNamesSilence(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	s := startNameServer(t, true, namedClients...)
	g := start(t, s.config(sink, puppet(t, "p", "", "tell = true")))
	for range 3 {
		m := g.proxied(sink, "192.0.2.7")
		if !strings.Contains(m.Data, "\r\nReceived: from client.example ([192.0.2.7])\r\n") {
			t.Errorf("%s", m.Data)
		}
	}
	if n, _ := s.questions(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A gate at RCPT is told the name as well, and does not look it up once more: greylist lets the
// client pass by it.
func TestClientNamesAskedOnce(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	s := startNameServer(t, false, namedClients...)
	g := start(t, s.config(sink, "[[plugin]]\nname = \"greylist\"\n[plugin.settings]\nreverse_name = true\n"))
	for range 2 {
		c := connect(t, g.addr[0])
		c.send("PROXY TCP4 192.0.2.7 127.0.0.1 1234 25\r\n")
		c.expect(220)
		c.cmd(250, "EHLO client.example")
		c.message("alice@sender.test", []string{"bob@example.org"}, "Subject: x\r\n\r\nx")
	}
	if n, _ := s.questions(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A trial asks as the gateway does.
func TestTryClientNames(t *testing.T) {
	t.Parallel()
	s := startNameServer(t, false, namedClients...)
	a := attemptWith(t, basics+nowhereOrg+fmt.Sprintf("[dns]\nservers = [%q]\n", s.addr))
	for client, want := range map[string]string{"192.0.2.7": "(mail.sender.test [192.0.2.7])", "192.0.2.8": "([192.0.2.8])"} {
		r := a.one("Subject: x\n\nx\n", "--client", client, "--helo", "client.example")
		if rec := r.header("Received"); len(rec) != 1 || !strings.HasPrefix(rec[0], "from client.example "+want) {
			t.Errorf("%s: %q", client, rec)
		}
	}
}
