package peertest

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRspamd(t *testing.T) {
	t.Parallel()
	r := StartRspamd(t)
	ask := func(header, want string) {
		t.Helper()
		resp, err := http.Post(r.URL+"/checkv2", "", strings.NewReader("From: a@b.test\r\nSubject: x\r\n"+header+"\r\ntext\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %v: no %s in %s", header, err, want, b)
		}
	}
	ask("", `"action":"no action"`)
	ask("X-Test-Score: 6.5\r\n", `"action":"add header"`)
	ask("X-Test-Score: 8\r\n", `"subject":"[spam] x"`)
	ask("X-Test-Action: soft reject\r\nX-Test-Message: later\r\n", `"smtp_message":"later"`)
	ask("X-Test-Milter: 1\r\n", `"remove_headers":{"X-Remove-Me":0}`)
	ask("\r\n"+GTUBE, `"action":"reject"`)
	c, err := net.Dial("tcp", r.Milter)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestClamd(t *testing.T) {
	t.Parallel()
	e := StartClamd(t)
	e.Stop()
	e.Restart()
	for network, address := range map[string]string{"unix": e.Socket, "tcp": e.Address} {
		if got := talk(t, network, address, "zPING\x00"); got != "PONG\x00" {
			t.Errorf("%s: %q", network, got)
		}
	}
}

func TestSpamd(t *testing.T) {
	t.Parallel()
	e := StartSpamd(t)
	for network, address := range map[string]string{"unix": e.Socket, "tcp": e.Address} {
		if got := talk(t, network, address, "CHECK SPAMC/1.5\r\nContent-length: 20\r\n\r\nSubject: spam-7\r\n\r\nx"); !strings.Contains(got, "True ; 7.0 / 5.0") {
			t.Errorf("%s: %q", network, got)
		}
	}
}

func talk(t *testing.T, network, address, request string) string {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	c.(interface{ CloseWrite() error }).CloseWrite() // spamd waits for it, or for the end of a line
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
