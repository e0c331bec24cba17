package main_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const withAttachments = `
[[plugin]]
name = "attachments"
[plugin.settings]
[[plugin.settings.rule]]
name = "programs"
names = ["*.exe", "*.scr"]
types = ["executable"]
action = "reject"
[[plugin.settings.rule]]
name = "macros"
types = ["macro"]
action = "strip"
[[plugin.settings.rule]]
name = "locked"
types = ["encrypted"]
action = "quarantine"
`

// attached is a message with a text, an attachment and another text; without says it with
// something else in the attachment's place.
func attached(header string, content []byte) (msg string, without func(string) string) {
	b := base64.StdEncoding.EncodeToString(content)
	var lines strings.Builder
	for ; len(b) > 76; b = b[76:] {
		lines.WriteString(b[:76] + "\r\n")
	}
	part := header + "Content-Transfer-Encoding: base64\r\n\r\n" + lines.String() + b
	without = func(other string) string {
		return "From: alice@example.net\r\nTo: bob@example.org\r\nSubject: K\xc3\xa4se   \r\nMIME-Version: 1.0\r\n" +
			"Content-Type: multipart/mixed;\r\n\tboundary=\"=_b\"\r\n\r\npreamble  \r\n--=_b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ntrailing \t \r\n\r\n" +
			"--=_b\r\n" + other + "\r\n--=_b\r\nContent-Type: text/plain\r\n\r\n\xe4 raw\r\n--=_b--\r\nepilogue"
	}
	return without(part), without
}

func zipOf(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	f.Write(content)
	w.Close()
	return b.Bytes()
}

// Attachments over the wire: refused in the reply, held, replaced by a note with every other
// byte as it was, or let through untouched, small messages and large ones.
func TestAttachments(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	g := start(t, strangers+exampleTo(sink)+withAttachments)
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	program := append([]byte("MZ\x90\x00\x03\x00\x00\x00\x04"), make([]byte, 100)...)
	pad := bytes.Repeat([]byte("0123456789abcdef"), 20_000) // beyond what travels inline
	document := func(pad []byte) []byte {
		return append(append([]byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), pad...), "_\x00V\x00B\x00A\x00_\x00P\x00R\x00O\x00J\x00E\x00C\x00T\x00"...)
	}
	begin := func(text string) {
		c.cmd(250, "MAIL FROM:<alice@example.net>")
		c.cmd(250, "RCPT TO:<bob@example.org>")
		c.cmd(354, "DATA")
		c.send(text + "\r\n.\r\n")
	}
	for name, tt := range map[string]struct {
		header  string
		content []byte
		says    string
	}{
		"by name":    {"Content-Disposition: attachment; filename*0*=utf-8''a%2E; filename*1=exe\r\n", []byte("x"), "a.exe (programs, named *.exe)"},
		"by content": {"Content-Type: image/png; name=a.png\r\n", program, "a.png (programs, type executable)"},
		"in a zip":   {"Content-Type: application/zip; name=a.zip\r\n", zipOf(t, "b.zip", zipOf(t, "../c.txt", program)), "a.zip/b.zip/../c.txt (programs, type executable)"},
		"large":      {"Content-Type: application/zip; name=a.zip\r\n", zipOf(t, "c.txt", append(program, pad...)), "a.zip/c.txt (programs, type executable)"},
	} {
		msg, _ := attached(tt.header, tt.content)
		begin(msg)
		if reply := c.expect(550); !strings.Contains(reply, "5.7.1 Attachment not allowed: "+tt.says) {
			t.Errorf("%s: %s", name, reply)
		}
	}
	locked := zipOf(t, "a.txt", []byte("x"))
	for i := range locked {
		if bytes.HasPrefix(locked[i:], []byte("PK\x01\x02")) {
			locked[i+8] |= 1
		}
	}
	msg, _ := attached("Content-Type: application/zip; name=a.zip\r\n", locked)
	begin(msg)
	id := queuedAs(t, c.expect(250))
	if q := g.queue(); len(q) != 1 || q[0].ID != id || q[0].State != "held" || !strings.Contains(q[0].Reason, "attachment a.zip (locked, type encrypted)") {
		t.Errorf("%+v", q)
	}
	const header = "Content-Type: application/msword\r\nContent-Disposition: attachment; filename=\"a.doc\"\r\n"
	var want []string
	for _, p := range [][]byte{nil, pad} {
		removed, without := attached(header, document(p))
		plain, _ := attached(header, p)
		want = append(want, "X-Attachments-Removed: 1 (macros)\r\n"+without("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: inline\r\n\r\n"+
			"An attachment was removed from this message.\r\n\r\na.doc (macros, type macro)")+"\r\n", plain+"\r\n")
		begin(removed)
		c.expect(250)
		begin(plain)
		c.expect(250)
	}
	for _, odd := range []string{"Subject: no blank line", "\r\nno header", "text alone", "Subject: no body\r\n"} {
		begin(odd)
		c.expect(250)
		if odd == "text alone" {
			odd = "\r\n" + odd // what intake adds needs an end
		}
		want = append(want, odd+"\r\n")
	}
	got := sink.wait(t, "all", func(got []arrived) bool { return len(got) == len(want) })
	arrived := make(map[string]bool)
	for _, m := range got {
		text := m.Data
		for _, field := range []string{"X-Attachments-Removed", ""} { // Received stands above or below it
			if field != "" && strings.HasPrefix(text, field) {
				i := strings.Index(text, "\r\n") + 2
				removed := text[:i]
				m.Data = text[i:]
				text = removed + whole(t, m)
				break
			}
			if field == "" {
				text = whole(t, m)
			}
		}
		arrived[text] = true
	}
	for i, w := range want {
		if !arrived[w] {
			t.Errorf("message %d did not arrive as it should have:\n%.600q", i, w)
		}
	}
	if t.Failed() {
		for text := range arrived {
			t.Logf("arrived: %.400q", text)
		}
	}
}

// Programs in archives and images of today, refused by the rules that are built in.
func TestAttachmentsInArchives(t *testing.T) {
	t.Parallel()
	made := func(name string) []byte { // by the real programs: see the README there
		t.Helper()
		b, err := os.ReadFile(filepath.Join("../../plugins/attachments/archive/testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	z, err := gzip.NewReader(bytes.NewReader(made("joliet.iso.gz")))
	if err != nil {
		t.Fatal(err)
	}
	image, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	rar := []byte("Rar!\x1a\x07\x01\x00" + "\x2e\x8b\xe7\x60\x03\x01\x00\x00" + // main header
		"\x00\x00\x00\x00\x15\x02\x02\x06\x00\x06\x20\x80\x03\x00\x0binvoice.exe" + "packed" + "\x1d\x77\x56\x51\x03\x05\x04\x00")
	sink := newSink(t)
	g := start(t, strangers+exampleTo(sink)+"\n[[plugin]]\nname = \"attachments\"\n")
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	for name, b := range map[string][]byte{"a.rar": rar, "a.7z": made("bcj2.7z"), "a.iso": image, "a.cab": made("mszip.cab"), "a.tar.xz": made("a.tar.xz"), "a.tar.zst": made("a.tar.zst")} {
		msg, _ := attached("Content-Type: application/octet-stream; name=\""+name+"\"\r\n", b)
		c.cmd(250, "MAIL FROM:<alice@example.net>")
		c.cmd(250, "RCPT TO:<bob@example.org>")
		c.cmd(354, "DATA")
		c.send(msg + "\r\n.\r\n")
		if reply := c.expect(550); !strings.Contains(reply, "5.7.1 Attachment not allowed: "+name+"/") || !strings.Contains(strings.ToLower(reply), "invoice.exe (programs, ") {
			t.Errorf("%s: %s", name, reply)
		}
	}
	if q := g.queue(); len(q) != 0 {
		t.Errorf("%+v", q)
	}
}
