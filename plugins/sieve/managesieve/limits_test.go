package managesieve

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// What is no command is answered as such, and what follows is what the client meant; where that
// is in doubt, the connection ends.
func TestSyntax(t *testing.T) {
	for line, want := range map[string]string{
		`FOO`:                      `NO "There is no such command"`,
		`FOO "a" {3+}` + "\r\nabc": `NO "There is no such command"`,
		`FOO a 1 {1+}` + "\r\na {2+}\r\nab {3+}\r\nabc": `NO "There is no such command"`,
		strings.Repeat("X", 1024):                       `NO "There is no such command"`,
		`noop  "x" `:                                    `OK (TAG "x") "Done"`,
		`NOOP "a`:                                       `NO "The string does not end"`,
		`NOOP "a\`:                                      `NO "The string does not end"`,
		`NOOP "a\b" "c"`:                                `NO "A backslash*`,
		`NOOP "a"b`:                                     `NO "Arguments stand apart*`,
		`NOOP "a""b"`:                                   `NO "Arguments stand apart*`,
		`NOOP 01`:                                       `NO "That is not a number"`,
		`NOOP 4294967296`:                               `NO "That is not a number"`,
		`NOOP 4294967295`:                               `NO "NOOP has*`,
		`NOOP 1x`:                                       `NO "That is not a number"`,
		`NOOP (a)`:                                      `NO "There is a character*`,
		` NOOP`:                                         `NO "There is a character*`,
		`"NOOP"`:                                        `NO "There is a character*`,
		"NO\xc3\xb6P":                                   `NO "There is a character*`,
		`CAPABILITY x`:                                  `NO "The command has no arguments"`,
		`LOGOUT 1`:                                      `NO "The command has no arguments"`,
		`STARTTLS "x"`:                                  `NO "The command has no arguments"`,
		`LISTSCRIPTS "x"`:                               `NO "The command has no arguments"`,
		`HAVESPACE "x"`:                                 `NO "HAVESPACE has*`,
		`HAVESPACE "x" "1"`:                             `NO "HAVESPACE has*`,
		`PUTSCRIPT "x"`:                                 `NO "PUTSCRIPT has*`,
		`PUTSCRIPT x "keep;"`:                           `NO "PUTSCRIPT has*`,
		`CHECKSCRIPT`:                                   `NO "CHECKSCRIPT has*`,
		`SETACTIVE`:                                     `NO "SETACTIVE has*`,
		`GETSCRIPT "a" "b"`:                             `NO "The command has*`,
		`DELETESCRIPT 1`:                                `NO "The command has*`,
		`RENAMESCRIPT "a" "b" "c"`:                      `NO "RENAMESCRIPT has*`,
		`RENAMESCRIPT "a" "b" 1 2`:                      `NO "RENAMESCRIPT has*`,
		`PUTSCRIPT "a\b" {6+}`:                          `BYE "A backslash*`,
		`PUTSCRIPT "a"{6+}`:                             `BYE "Arguments stand apart*`,
		`PUTSCRIPT "a" "b"{6+}`:                         `BYE "Arguments stand apart*`,
		`CHECKSCRIPT{6+}`:                               `BYE "There is a character*`,
		`HAVESPACE "a" 6{6+}`:                           `BYE "There is a character*`,
		`PUTSCRIPT "a {6+}`:                             `BYE "The string does not end"`,
		`PUTSCRIPT "a" {6}`:                             `BYE "That is not a literal"`,
		`PUTSCRIPT "a" {+}`:                             `BYE "That is not a literal"`,
		`PUTSCRIPT "a" {6+`:                             `BYE "That is not a literal"`,
		`PUTSCRIPT "a" {6+} `:                           `BYE "That is not a literal"`,
		`PUTSCRIPT "a" {06+}`:                           `BYE "That is not a literal"`,
		`PUTSCRIPT "a" {-6+}`:                           `BYE "That is not a literal"`,
		`PUTSCRIPT "a" {0x6+}`:                          `BYE "That is not a literal"`,
		`PUTSCRIPT "a" {4294967296+}`:                   `BYE "That is not a literal"`,
		`PUTSCRIPT "a" {99999999999999999999+}`:         `BYE "That is not a literal"`,
		`PUTSCRIPT "a" {4294967295+}`:                   `BYE (QUOTA/MAXSIZE) "The literal is too large"`,
		"NOOP \x00":                                     `BYE "There is a NUL"`,
		"NOOP \"\x00\"":                                 `BYE "There is a NUL"`,
		"NOOP\x01":                                      `BYE "There is a control character"`,
		"NOOP\nNOOP":                                    `BYE "Lines end with CR and LF"`,
		"NOOP\rNOOP":                                    `BYE "A CR stands alone"`,
		"NOOP \"a\rb\"":                                 `BYE "A CR stands alone"`,
		"NOOP \"a\nb\"":                                 `BYE "Lines end with CR and LF"`,
		"NOOP \r\r":                                     `BYE "A CR stands alone"`,
	} {
		t.Run(line, func(t *testing.T) {
			p := serving(t, nil).dial().talk("ALICE")
			p.send(line + "\r\nNOOP \"next\"\r\n")
			p.talk("S: " + want)
			if strings.HasPrefix(want, "BYE") {
				p.talk("END")
			} else {
				p.talk("S: OK (TAG \"next\") \"Done\"")
			}
		})
	}
}

// An empty line is no command: it is not answered.
func TestEmptyLines(t *testing.T) {
	p := serving(t, nil).dial().talk("S: ...")
	p.send(strings.Repeat("\r\n", 8) + "NOOP\r\n")
	p.talk("S: OK*")
	p.send(strings.Repeat("\r\n", 9) + "NOOP\r\n")
	p.talk("S: BYE \"Too many empty lines\"\nEND")
}

// Lines, at their limit.
func TestLineLimit(t *testing.T) {
	for more, want := range map[int]string{-1: "S: NO \"The tag is too long\"", 0: "S: NO \"The tag is too long\"", 1: "S: BYE \"The line is too long\"\nEND"} {
		p := serving(t, nil).dial().talk("S: ...")
		p.send("NOOP \"" + strings.Repeat("x", maxLine+more-len("NOOP \"\"\r")) + "\"\r\n")
		p.talk(want)
	}
	// No line end at all.
	p := serving(t, nil).dial().talk("S: ...")
	p.send(strings.Repeat("x", maxLine+1))
	p.talk("S: BYE \"The line is too long\"\nEND")
}

// Scripts, at the limit of what is taken, of what is read over, and beyond.
func TestScriptLimit(t *testing.T) {
	r := serving(t, func(o *Options) { o.MaxScript = 20_000 })
	for _, tt := range []struct {
		command string
		size    int
		want    string
	}{
		{`CHECKSCRIPT`, 19_999, "S: OK*"},
		{`CHECKSCRIPT`, 20_000, "S: OK*"},
		{`CHECKSCRIPT`, 20_001, "S: NO (QUOTA/MAXSIZE) \"The script is too large\""},
		{`PUTSCRIPT "a"`, 1999, "S: OK*"},
		{`PUTSCRIPT "a"`, 2000, "S: OK*"},
		{`PUTSCRIPT "a"`, 2001, "S: NO (QUOTA/MAXSIZE) \"2000*"},
		{`PUTSCRIPT "a"`, 20_001, "S: NO (QUOTA/MAXSIZE) \"The script is too large\""},
		{`PUTSCRIPT "a"`, 80_000, "S: NO (QUOTA/MAXSIZE) \"The script is too large\""},
		{`PUTSCRIPT "a"`, 80_001, "S: BYE (QUOTA/MAXSIZE)*\nEND"},
		{`CHECKSCRIPT "x"`, 1024, "S: NO \"CHECKSCRIPT has*"},
		{`CHECKSCRIPT "x"`, 1025, "S: NO \"CHECKSCRIPT has*"},
		{`NOOP`, 1024, "S: OK*"},
		{`NOOP`, 1025, "S: NO \"The tag is too long\""},
		{`GETSCRIPT`, 513, "S: NO \"A script's name*"},
	} {
		p := r.dial().talk("ALICE")
		p.send(fmt.Sprintf("%s {%d+}\r\n", tt.command, tt.size))
		if !strings.Contains(tt.want, "END") {
			p.send(strings.Repeat("x", tt.size) + "\r\nNOOP\r\n")
		}
		p.talk(tt.want)
		if !strings.Contains(tt.want, "END") {
			p.talk("S: OK*")
		}
		p.conn.Close()
	}
	// Before log-in, less is read over.
	r.dial().talk("S: ...\nC: CHECKSCRIPT {65537+}\nS: BYE (QUOTA/MAXSIZE)*\nEND")
	p := r.dial().talk("S: ...\nC: CHECKSCRIPT {65536+}")
	p.send(strings.Repeat("x", 65536) + "\r\n")
	p.talk("S: NO \"Log in first\"")
}

// Scripts on their way share memory; there is none for one more.
func TestScriptMemory(t *testing.T) {
	const size = 1 << 20
	r := serving(t, func(o *Options) { o.MaxScript, o.MaxPerClient = size, 100 })
	var waiting []*peer
	for range scriptMemory / size {
		p := r.dial().talk("ALICE")
		p.send(fmt.Sprintf("CHECKSCRIPT {%d+}\r\n", size))
		p.send(strings.Repeat("x", size/2)) // more than the sockets hold: it has been taken
		waiting = append(waiting, p)
	}
	for deadline := time.Now().Add(patience); ; { // the last one may not have been seen yet
		p := r.dial().talk("ALICE")
		p.send(fmt.Sprintf("CHECKSCRIPT {%d+}\r\n%s\r\nNOOP\r\n", size, strings.Repeat("x", size)))
		got := p.line(0)
		p.talk("S: OK*")
		p.conn.Close()
		if strings.HasPrefix(got, "NO (TRYLATER)") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server says %q", got)
		}
	}
	for _, p := range waiting {
		p.send(strings.Repeat("x", size/2) + "\r\n")
		p.talk("S: OK*")
	}
	p := r.dial().talk("ALICE")
	p.send(fmt.Sprintf("CHECKSCRIPT {%d+}\r\n%s\r\n", size, strings.Repeat("x", size)))
	p.talk("S: OK*")
}

// Faults are counted, fewer before a log-in.
func TestFaults(t *testing.T) {
	r := serving(t, nil)
	r.dial().talk("S: ...\n" + strings.Repeat("C: GET / HTTP/1.1\nS: NO*\n", maxFaultsBefore-1) + "C: NOOP\nS: OK*\nC: FOO\nS: BYE \"Too many faults\"\nEND")
	r.dial().talk("ALICE\n" + strings.Repeat("C: FOO\nS: NO*\n", maxFaultsAfter-1) + "C: FOO\nS: BYE \"Too many faults\"\nEND")
	// TLS where STARTTLS belongs.
	p := r.dial().talk("S: ...")
	p.send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	p.talk("S: BYE \"There is a control character\"\nEND")
}

// Connections of one client, at their limit.
func TestConnectionsOfClient(t *testing.T) {
	r := serving(t, func(o *Options) { o.MaxPerClient = 3 })
	var open []*peer
	for range 3 {
		open = append(open, r.dial().talk("S: ..."))
	}
	for range 5 {
		r.dial().talk("S: BYE (TRYLATER) \"Too many connections from your address\"\nEND")
	}
	open[1].talk("C: LOGOUT\nS: OK*\nEND")
	open[1].conn.Close()
	for deadline := time.Now().Add(patience); ; { // the server may have to notice it yet
		p := r.dial()
		if got := p.line(0); !strings.HasPrefix(got, "BYE") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no room")
		}
	}
	open[0].talk("C: NOOP\nS: OK*")
	r.end()
	if n := strings.Count(r.log.text(), "managesieve connections refused"); n != 1 {
		t.Errorf("the log hears of it %d times", n)
	}
}

// Connections in all, at their limit: for one more, the oldest goes that has not logged in.
func TestConnections(t *testing.T) {
	r := serving(t, func(o *Options) { o.MaxConnections = 3 })
	a := r.dial().talk("ALICE")
	b := r.dial().talk("S: ...")
	c := r.dial().talk("S: ...")
	d := r.dial().talk("S: ...")
	b.talk("S: BYE (TRYLATER) \"The server has to end this now\"\nEND")
	b.conn.Close()
	for _, p := range []*peer{c, d} { // still there
		p.talk("C: STARTTLS\nS: OK*\nTLS\nS: ...\nC: AUTHENTICATE \"PLAIN\" \"" + plain("alice@example.org", "secret") + "\"\nS: OK*")
	}
	for deadline := time.Now().Add(patience); ; { // the server may have to notice yet that b has gone
		p := r.dial()
		if got := p.line(0); got == `BYE (TRYLATER) "Too many connections, try again later"` {
			p.talk("END")
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is room for four")
		}
	}
	a.talk("C: NOOP\nS: OK*")
	c.talk("C: UNAUTHENTICATE\nS: OK*")
	r.dial().talk("S: ...")
	c.talk("S: BYE (TRYLATER)*\nEND")
}

// SASL exchanges of one client at a time. One more can come when one has ended, and no
// exchange is begun for who has not said anything yet.
func TestExchangeLimit(t *testing.T) {
	r := serving(t, func(o *Options) { o.MaxPerClient = 100 })
	secure := "S: ...\nC: STARTTLS\nS: OK*\nTLS\nS: ...\n"
	var silent, waiting []*peer
	for range 2 * maxExchangesEach {
		silent = append(silent, r.dial().talk(secure+"C: AUTHENTICATE \"PLAIN\"\nS: \"\""))
	}
	for range maxExchangesEach {
		waiting = append(waiting, r.dial().talk(secure+"C: AUTHENTICATE \"LOGIN\"\nS: \""+b64("Username:")+"\""))
	}
	for range maxFailures + 1 { // it is not the client's fault
		silent[0].talk("C: \"" + plain("alice@example.org", "secret") + "\"\nS: NO (TRYLATER)*\nC: AUTHENTICATE \"PLAIN\"\nS: \"\"")
	}
	waiting[3].talk("C: \"*\"\nS: NO*")
	silent[0].talk("C: \"" + plain("alice@example.org", "secret") + "\"\nS: OK*")
	silent[1].talk("C: \"" + plain("alice@example.org", "secret") + "\"\nS: OK*")
	waiting[0].talk("C: \"" + b64("alice@example.org") + "\"\nS: \"" + b64("Password:") + "\"\nC: \"" + b64("secret") + "\"\nS: OK*")
}

// T-01: what is said before TLS does not count after it, and is not kept for it.
func TestT01StartTLSInjection(t *testing.T) {
	for _, injected := range []string{"NOOP\r\n", "AUTHENTICATE \"PLAIN\" \"" + plain("alice@example.org", "secret") + "\"\r\n", "\r\n", "x",
		strings.Repeat("NOOP \"x\"\r\n", 5000)} { // more than is read at once
		r := serving(t, nil)
		p := r.dial().talk("S: ...")
		p.send("STARTTLS\r\n" + injected)
		p.talk("S: BYE \"Nothing may follow STARTTLS before TLS has begun\"")
		if rest, _ := io.ReadAll(p.r); len(rest) > 0 { // a reset is as good as the end
			t.Errorf("after STARTTLS and %.20q the server says %q", injected, rest)
		}
		if strings.Contains(r.log.text(), "log-in") {
			t.Error(r.log.text())
		}
	}
	// The same, later: it is garbage for TLS.
	r := serving(t, nil)
	p := r.dial().talk("S: ...\nC: STARTTLS\nS: OK*\nC: NOOP \"in the clear\"")
	if rest, _ := io.ReadAll(p.r); strings.Contains(string(rest), "in the clear") {
		t.Errorf("the server says %q", rest)
	}
	// And a fault before is not one after.
	r.dial().talk("S: ...\n" + strings.Repeat("C: FOO\nS: NO*\n", maxFaultsBefore-1) + "C: STARTTLS\nS: OK*\nTLS\nS: ...\nC: FOO\nS: NO*")
}

// What is one client.
func TestClientOf(t *testing.T) {
	for address, want := range map[string]string{"192.0.2.1": "192.0.2.1/32", "2001:db8:1:2:3::4": "2001:db8:1:2::/64"} {
		if got := clientOf(netip.MustParseAddr(address)).String(); got != want {
			t.Errorf("%s is %s", address, got)
		}
	}
	clientOf(netip.Addr{})
}

// Time, of each kind.
func TestTimeouts(t *testing.T) {
	const short = 100 * time.Millisecond
	tooLong := "S: BYE \"That took too long\"\nEND"
	for name, tt := range map[string]struct {
		timeouts Timeouts
		dialogue string
	}{
		"no log-in":        {Timeouts{Login: short}, "S: ...\n" + tooLong},
		"half a command":   {Timeouts{Login: short}, "S: ...\nC\"NOO\"\n" + tooLong},
		"command":          {Timeouts{Command: short}, "S: ...\nC\"NOOP {10+}\\r\\n12345\"\n" + tooLong},
		"challenge":        {Timeouts{Response: short}, "S: ...\nC: STARTTLS\nS: OK*\nTLS\nS: ...\nC: AUTHENTICATE \"PLAIN\"\nS: \"\"\n" + tooLong},
		"idle":             {Timeouts{Idle: short}, "ALICE\n" + tooLong},
		"idle at times":    {Timeouts{Login: short * 30, Idle: patience}, "ALICE\nC: NOOP\nS: OK*"},
		"old log-in":       {Timeouts{Session: 1}, "ALICE\nC: NOOP\nS: OK*\nC: PUTSCRIPT \"a\" \"keep;\"\nS: BYE \"Log in again\"\nEND"},
		"no handshake":     {Timeouts{Handshake: short}, "S: ...\nC: STARTTLS\nS: OK*\nEND"},
		"log-in once more": {Timeouts{Login: short * 30}, "ALICE\nC: UNAUTHENTICATE\nS: OK*\n" + tooLong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			serving(t, func(o *Options) { o.Timeouts = tt.timeouts }).dial().talk(tt.dialogue)
		})
	}
	t.Run("never stops", func(t *testing.T) {
		t.Parallel()
		p := serving(t, func(o *Options) { o.Timeouts.Login = short }).dial().talk("S: ...")
		for {
			if _, err := io.WriteString(p.conn, "NOOP\r\n"); err != nil {
				return // it has been hung up
			}
			line, err := p.r.ReadString('\n')
			if err != nil || strings.HasPrefix(line, "BYE") {
				return
			}
		}
	})
}

// A client that reads nothing does not keep the server.
func TestSlowReader(t *testing.T) {
	r := serving(t, func(o *Options) { o.Timeouts.Write = 200 * time.Millisecond })
	r.scripts.scripts["a"] = strings.Repeat("x", 1<<20)
	p := r.dial().talk("ALICE")
	err := error(nil)
	for err == nil {
		_, err = io.WriteString(p.conn, strings.Repeat("GETSCRIPT \"a\"\r\n", 64))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server has not hung up")
	}
}
