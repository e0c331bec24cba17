package main_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A dialogue is a text file under testdata/dialogues, run against the real binary:
//
//	# comment
//	config            lines up to "end" are appended to the configuration
//	account USER PASSWORD
//	listener N        talk to the N-th listener (0 is the first, an mx listener)
//	-> text           send text and CRLF; \r \n \0 \xHH in it are bytes
//	=> text           send text without CRLF
//	base64> text      send text in base64, and CRLF
//	repeat N text     send text and CRLF N times
//	<- 250 ...        read a reply; its last line must match, * stands for anything
//	<< text           some line of the last reply is text
//	!< text           no line of the last reply begins with text
//	tls               begin TLS
//	connect           another connection, in place of the last; reads no banner
//	closed            the server closes the connection
//	queued N          so many messages have been accepted since the start
type dialogue struct {
	t     *testing.T
	g     *gateway
	c     *client
	last  []string // lines of the last reply
	seen  int      // lines of the log that queued has looked at
	where string
}

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("../../testdata/dialogues/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			runDialogue(t, file)
		})
	}
}

// dialogueConfig has an mx listener and, as listener 1, one for submission.
// Nobody may relay.
var dialogueConfig = strings.Replace(basics, `networks = ["127.0.0.0/8"]`, `networks = []`, 1) + `
[[listener]]
address = "127.0.0.1:0"
role = "submission"
[[listener]]
address = "127.0.0.1:0"
role = "lmtp"
[[domain]]
name = "example.org"
deliver = "smtp://127.0.0.1:1"
recipients = "directory"
[[domain]]
name = "any.example"
deliver = "smtp://127.0.0.1:1"
recipients = "any"
`

func runDialogue(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	config, lines := dialogueSetup(lines)
	dir := t.TempDir()
	write(t, dir, config)
	for _, line := range lines {
		if user, ok := strings.CutPrefix(line, "account "); ok {
			name, password, _ := strings.Cut(user, " ")
			if out, code := postern(t, password, "account", "add", name, "--password-stdin", "--config", filepath.Join(dir, "postern.toml")); code != 0 {
				t.Fatal(out)
			}
		}
	}
	d := &dialogue{t: t, g: startIn(t, dir, config)}
	d.c = connect(t, d.g.addr[0])
	for i, line := range lines {
		d.where = fmt.Sprintf("%s: %q (line %d of the dialogue)", filepath.Base(file), line, i+1)
		d.step(line)
	}
}

// dialogueSetup takes the configuration out of a dialogue.
func dialogueSetup(lines []string) (string, []string) {
	config := dialogueConfig
	var rest []string
	in := false
	for _, line := range lines {
		switch {
		case line == "config":
			in = true
		case in && line == "end":
			in = false
		case in:
			config = strings.TrimSuffix(config, "\n") + "\n" + line + "\n"
		default:
			rest = append(rest, line)
		}
	}
	return config, rest
}

func (d *dialogue) step(line string) {
	d.t.Helper()
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "", "#", "account":
	case "listener":
		n, _ := strconv.Atoi(rest)
		d.c.conn.Close()
		d.c = connect(d.t, d.g.addr[n])
	case "connect":
		addr := d.c.conn.RemoteAddr().String()
		d.c.conn.Close()
		d.c = connect(d.t, addr)
	case "->":
		d.c.send(unescape(rest) + "\r\n")
	case "=>":
		d.c.send(unescape(rest))
	case "base64>":
		d.c.send(base64.StdEncoding.EncodeToString([]byte(unescape(rest))) + "\r\n")
	case "repeat":
		count, text, _ := strings.Cut(rest, " ")
		n, _ := strconv.Atoi(count)
		d.c.send(strings.Repeat(unescape(text)+"\r\n", n))
	case "<-":
		d.reply(rest)
	case "<<":
		for _, l := range d.last {
			if l == rest {
				return
			}
		}
		d.t.Fatalf("%s: the reply was %q", d.where, d.last)
	case "!<":
		for _, l := range d.last {
			if strings.HasPrefix(l, rest) {
				d.t.Fatalf("%s: the reply was %q", d.where, d.last)
			}
		}
	case "tls":
		conn := tls.Client(d.c.conn, &tls.Config{InsecureSkipVerify: true})
		if err := conn.Handshake(); err != nil {
			d.t.Fatalf("%s: %v", d.where, err)
		}
		d.c.conn, d.c.r = conn, bufio.NewReader(conn)
	case "closed":
		if b, err := d.c.r.ReadByte(); err == nil {
			d.t.Fatalf("%s: not closed, got %q", d.where, b)
		}
	case "queued":
		d.queued(rest)
	default:
		d.t.Fatalf("%s: no such step", d.where)
	}
}

// queued waits for the messages that have to be there, and wants no other.
func (d *dialogue) queued(want string) {
	d.t.Helper()
	for want != "0" && fmt.Sprint(d.g.log.count("accepted", nil)) != want {
		d.g.log.waitFrom(d.t, d.seen, "accepted", nil)
		d.seen = d.g.log.len()
	}
	if n := fmt.Sprint(d.g.log.count("accepted", nil)); n != want {
		d.t.Fatalf("%s: %s messages were accepted", d.where, n)
	}
}

// reply reads a reply and compares its last line.
func (d *dialogue) reply(want string) {
	d.t.Helper()
	d.last = nil
	for {
		line, err := d.c.r.ReadString('\n')
		if err != nil {
			d.t.Fatalf("%s: %v after %q", d.where, err, d.last)
		}
		if !strings.HasSuffix(line, "\r\n") || len(line) > 512 {
			d.t.Fatalf("%s: %q is no reply line", d.where, line)
		}
		line = strings.TrimSuffix(line, "\r\n")
		if len(line) < 4 {
			d.t.Fatalf("%s: %q is no reply line", d.where, line)
		}
		d.last = append(d.last, line[4:])
		if line[3] != '-' {
			if !glob(want, line) {
				d.t.Fatalf("%s: the reply was %q", d.where, line)
			}
			return
		}
	}
}

// glob matches a pattern in which * stands for anything.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for i, p := range parts[1:] {
		if i == len(parts)-2 {
			return strings.HasSuffix(s, p)
		}
		_, after, ok := strings.Cut(s, p)
		if !ok {
			return false
		}
		s = after
	}
	return s == ""
}

func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.ReplaceAll(s, `\0`, `\x00`), `"`, `\"`) + `"`)
	if err != nil {
		panic(fmt.Sprintf("dialogue: %q: %v", s, err))
	}
	return out
}
