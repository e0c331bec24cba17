package imapappend

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// cutter passes connections on to a server, and cuts them where a test wants it.
type cutter struct {
	l      net.Listener
	target string
	after  atomic.Int64           // bytes of the client after which it cuts; 0: never
	answer atomic.Pointer[string] // what of the server's it cuts before
}

func newCutter(t *testing.T, target string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cutter{l: l, target: target}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.pass(client)
		}
	}()
	return c
}

func (c *cutter) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		var r io.Reader = client
		if n := c.after.Load(); n > 0 {
			r = io.LimitReader(client, n)
		}
		io.Copy(server, r)
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 4096)
		for {
			n, err := server.Read(buf)
			if cut := c.answer.Load(); cut != nil && *cut != "" && bytes.Contains(buf[:n], []byte(*cut)) {
				return
			}
			if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}()
	<-done
}

// The connection ends somewhere in APPEND: the delivery is temporarily refused, the server
// has the message whole or not at all, and trying again, by whatever process, leaves exactly
// one.
func TestConnectionEndsInAppend(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{})
	body := strings.Repeat("0123456789\r\n", 5000)
	for i, tt := range []struct {
		after  int64
		answer string
		there  int // after the first attempt
	}{{300, "", 0}, {1000, "", 0}, {30_000, "", 0}, {60_000, "", 0}, {0, "Append completed", 1}, {0, "+ OK", 0}} {
		c := newCutter(t, d.IMAP)
		c.after.Store(tt.after)
		c.answer.Store(&tt.answer)
		to := mail.MustPath(fmt.Sprintf("user%d@example.org", i))
		settings := fmt.Sprintf("address = %q\ntls = 'none'", c.l.Addr())
		p := configured(t, d, settings)
		dl := delivery(fmt.Sprint("k", i), to, body)
		dl.Fresh = true
		if err := p.Deliver(t.Context(), dl); err == nil || !mail.StatusOf(err).Temporary() {
			t.Errorf("%v: first attempt: %v", tt, err)
		}
		imap := d.Login(t, to.String())
		if got := fetch(t, imap, "INBOX"); len(got) != tt.there {
			t.Errorf("%v: %d messages after the first attempt", tt, len(got))
		}
		c.after.Store(0)
		c.answer.Store(nil)
		dl.Fresh = false
		for _, again := range []*Plugin{p, configured(t, d, settings), p} {
			if err := again.Deliver(t.Context(), dl); err != nil {
				t.Errorf("%v: again: %v", tt, err)
			}
		}
		if got := fetch(t, imap, "INBOX"); len(got) != 1 || !strings.HasSuffix(got[0].text, body) {
			t.Errorf("%v: %d messages in the end", tt, len(got))
		}
	}
}

// scripted is a server that says what a test wants to commands that begin like that.
func scripted(t *testing.T, answers map[string]string) *Plugin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go script(conn, answers)
		}
	}()
	data := t.TempDir()
	os.WriteFile(filepath.Join(data, "password"), []byte("x"), 0o600)
	p := New()
	settings := fmt.Sprintf("address = %q\ntls = 'none'\nusername = 'm'\npassword_file = 'password'", l.Addr())
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings), DataDir: data, Hostname: "mx.example.org"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.pool.close)
	return p
}

func script(conn net.Conn, answers map[string]string) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	greeting, ok := answers["greeting"]
	if !ok {
		greeting = "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\r\n"
	}
	io.WriteString(conn, greeting)
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		answer := "%s OK done\r\n"
		if strings.HasPrefix(command, "APPEND") {
			answer = "+ go on\r\n"
		}
		if strings.HasPrefix(command, "UID SEARCH") {
			answer = "* SEARCH\r\n%s OK done\r\n"
		}
		for begin, a := range answers {
			if strings.HasPrefix(command, begin) {
				answer = a
			}
		}
		if answer == "endless" {
			for {
				if _, err := io.WriteString(conn, "* OK "+strings.Repeat("x", 60_000)+"\r\n"); err != nil {
					return
				}
			}
		}
		io.WriteString(conn, strings.ReplaceAll(answer, "%s", tag))
		if answer == "+ go on\r\n" {
			var size int64
			fmt.Sscanf(command[strings.LastIndexByte(command, '{'):], "{%d", &size)
			io.CopyN(io.Discard, r, size)
			r.ReadString('\n')
			final, ok := answers["after"]
			if !ok {
				final = "%s OK done\r\n"
			}
			io.WriteString(conn, strings.ReplaceAll(final, "%s", tag))
		}
	}
}

// What a server says decides how the delivery ends: for good only where it says so.
func TestAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		answers map[string]string
		folder  string
		want    int // 0: stored
	}{
		"fine":                  {nil, "", 0},
		"fine, in a folder":     {nil, "A/B", 0},
		"over quota, before":    {map[string]string{"APPEND": "%s NO [OVERQUOTA] full\r\n"}, "", 452},
		"over quota, after":     {map[string]string{"after": "%s NO [OVERQUOTA] full\r\n"}, "", 452},
		"too big":               {map[string]string{"APPEND": "%s NO [TOOBIG] no\r\n"}, "", 552},
		"cannot":                {map[string]string{"after": "%s NO [CANNOT] no\r\n"}, "", 554},
		"cannot, in a folder":   {map[string]string{"STATUS": "%s NO no\r\n", "CREATE": "%s NO [CANNOT] no\r\n"}, "A", 554},
		"no permission":         {map[string]string{"STATUS": "%s NO no\r\n", "CREATE": "%s NO [NOPERM] no\r\n"}, "A", 554},
		"no permission, inbox":  {map[string]string{"after": "%s NO [NOPERM] no\r\n"}, "", 451},
		"made by somebody else": {map[string]string{"STATUS": "%s NO no\r\n", "CREATE": "%s NO [ALREADYEXISTS] no\r\n"}, "A", 0},
		"not subscribed":        {map[string]string{"STATUS": "%s NO no\r\n", "SUBSCRIBE": "%s NO no\r\n"}, "A", 0},
		"folder goes and goes":  {map[string]string{"APPEND": "%s NO [TRYCREATE] no\r\n"}, "A", 451},
		"unavailable":           {map[string]string{"STATUS": "%s NO [UNAVAILABLE] no\r\n"}, "A", 451},
		"no":                    {map[string]string{"after": "%s NO no\r\n"}, "", 451},
		"bad":                   {map[string]string{"APPEND": "%s BAD what\r\n"}, "", 451},
		"bye":                   {map[string]string{"after": "* BYE\r\n"}, "", 451},
		"bye at once":           {map[string]string{"greeting": "* BYE full\r\n"}, "", 451},
		"another protocol":      {map[string]string{"greeting": "220 smtp.example.org ESMTP\r\n"}, "", 451},
		"preauth":               {map[string]string{"greeting": "* PREAUTH [CAPABILITY IMAP4rev1] hello\r\n"}, "", 451},
		"no log-in":             {map[string]string{"AUTHENTICATE": "%s NO [AUTHORIZATIONFAILED] no\r\n"}, "", 451},
		"garbage":               {map[string]string{"after": "\x00\xff((((\r\n"}, "", 451},
		"endless":               {map[string]string{"APPEND": "endless"}, "", 451},
		"no answer":             {map[string]string{"APPEND": ""}, "", 451},
		"wrong tag":             {map[string]string{"after": "zzz OK\r\n"}, "", 451},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := scripted(t, tt.answers)
			limit := time.Minute
			if name == "no answer" || name == "bye" { // there, nothing comes after it
				limit = 300 * time.Millisecond
			}
			ctx, cancel := contextWithTimeout(t, limit)
			defer cancel()
			dl := delivery("k", ann, strings.Repeat("x\r\n", 3000))
			dl.Folder = tt.folder
			err := p.Deliver(ctx, dl)
			if tt.want == 0 && err == nil {
				return
			}
			if st := mail.StatusOf(err); st.Code != tt.want {
				t.Errorf("%v, want %d", err, tt.want)
			}
			if n := len(p.pool.slots); n != 0 {
				t.Errorf("%d connections are in use", n)
			}
		})
	}
}
