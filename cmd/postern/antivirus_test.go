package main_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// filtered is a gateway in front of a sink, with one filter.
func filtered(out *smtptest.Sink, name, plugin, settings string) string {
	return forwarding("example.org", "smtp://"+out.Addr()) +
		fmt.Sprintf("[[plugin]]\nname = %q\n%s\n[plugin.settings]\n%s\n", name, plugin, settings)
}

// offer sends a message and returns the reply at the end of the data.
func (g *gateway) offer(text string, to ...string) (int, string) {
	g.t.Helper()
	c := dial(g.t, g.addr[0])
	defer c.conn.Close()
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<alice@example.net>")
	for _, rcpt := range to {
		c.cmd(250, "RCPT TO:<%s>", rcpt)
	}
	c.cmd(354, "DATA")
	c.send(text + ".\r\n")
	code, reply, _ := c.reply()
	return code, reply
}

const letterHead = "From: alice@example.net\r\nSubject: x\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\nMessage-ID: <1@example.net>\r\n"

// The test file of the industry is refused by name while the client is there; what is clean
// arrives as it was sent; an encrypted archive and a message too large to scan are held.
func TestAntivirus(t *testing.T) {
	t.Parallel()
	e := peertest.StartClamd(t, "StreamMaxLength 1M")
	for name, settings := range map[string]string{
		"unix":   fmt.Sprintf("addresses = [\"unix:%s\"]\nfildes = false", e.Socket),
		"TCP":    fmt.Sprintf("addresses = [%q]", e.Address),
		"FILDES": fmt.Sprintf("addresses = [\"unix:%s\"]", e.Socket),
	} {
		t.Run(name, func(t *testing.T) {
			sink := smtptest.New(t, smtptest.Options{})
			g := start(t, filtered(sink, "antivirus", "origins = [\"submitted\"]", settings))
			eicar := letterHead + "\r\n" + peertest.EICAR() + "\r\n"
			if code, reply := g.offer(eicar, "bob@example.org"); code != 554 || reply != "5.7.1 Virus found: Eicar-Test-Signature.UNOFFICIAL" {
				t.Errorf("EICAR: %d %s", code, reply)
			}
			if code, reply := g.offer(zipped(t, "", peertest.EICAR()), "bob@example.org"); code != 554 {
				t.Errorf("EICAR in an archive: %d %s", code, reply)
			}
			held := 0
			for what, text := range map[string]string{
				"encrypted, Heuristics.Encrypted.Zip": zipped(t, "secret", peertest.EICAR()),
				"too large, StreamMaxLength":          letterHead + "\r\n" + strings.Repeat("0123456789abcd\r\n", 1<<16),
			} {
				code, reply := g.offer(text, "bob@example.org")
				if code != 250 {
					t.Fatalf("%s: %d %s", what, code, reply)
				}
				held++
				found := false
				for _, q := range g.queue() {
					found = found || q.State == "held" && strings.Contains(q.Reason, what)
				}
				if !found {
					t.Errorf("%s: not held: %v", what, g.queue())
				}
			}
			large := letterHead + "X-Virus-Status: Clean\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 60_000)
			for i, text := range []string{letterHead + "\r\ntext\r\n", large, letterHead} {
				if code, reply := g.offer(text, "bob@example.org"); code != 250 {
					t.Fatalf("clean: %d %s", code, reply)
				}
				untouched(t, sink.Wait(t, i+1, patience)[i].Data, []byte(strings.Replace(text, "X-Virus-Status: Clean\r\n", "", 1)))
			}
			eventually(t, "only what is held is left", func() bool { return len(g.queue()) == held })
			if n := len(sink.Messages()); n != 3 {
				t.Errorf("%d messages passed", n)
			}
		})
	}
}

// zipped is a message with an archive.
func zipped(t testing.TB, password, content string) string {
	t.Helper()
	peer(t, "zip")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "content.txt"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", "a.zip", "content.txt"}
	if password != "" {
		args = append([]string{"-P", password}, args...)
	}
	cmd := exec.Command("zip", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("zip: %v\n%s", err, out)
	}
	archive, err := os.ReadFile(filepath.Join(dir, "a.zip"))
	if err != nil {
		t.Fatal(err)
	}
	return letterHead + "MIME-Version: 1.0\r\nContent-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		base64.StdEncoding.EncodeToString(archive) + "\r\n"
}

// With an engine that is down, hangs or lies, on_failure decides, and nothing passes unseen.
func TestAntivirusEngineFails(t *testing.T) {
	t.Parallel()
	e := peertest.StartClamd(t)
	e.Freeze()
	lies := func(text string) string {
		return smtptest.Serve(t, func(c net.Conn) {
			var buf [4096]byte
			c.Read(buf[:])
			c.Write([]byte(text))
		})
	}
	for name, address := range map[string]string{
		"down": deadEnd(t), "hangs": e.Address, "garbage": lies("250 ok\r\n"), "closes": lies(""), "giant": lies(strings.Repeat("stream: OK ", 1<<17)),
	} {
		for policy, want := range map[string]int{"tempfail": 451, "reject": 554, "accept": 250} {
			t.Run(name+" "+policy, func(t *testing.T) {
				t.Parallel()
				sink := smtptest.New(t, smtptest.Options{})
				g := start(t, filtered(sink, "antivirus", fmt.Sprintf("timeout = \"1s\"\non_failure = %q\norigins = [\"submitted\"]", policy), fmt.Sprintf("addresses = [%q]", address)))
				code, reply := g.offer(letterHead+"\r\ntext\r\n", "bob@example.org")
				if code != want {
					t.Fatalf("%d %s", code, reply)
				}
				if want == 250 {
					if m := sink.Wait(t, 1, patience)[0].Data; !bytes.HasPrefix(m, []byte("X-Postern-Unscanned: antivirus (")) && !bytes.Contains(m, []byte("\r\nX-Postern-Unscanned: antivirus (")) {
						t.Errorf("passed unmarked:\n%s", m)
					}
				}
			})
		}
	}
}
