package antivirus

import (
	ziparchive "archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/sdktest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// The real clamd, over both kinds of sockets and with both commands.
func TestClamd(t *testing.T) {
	t.Parallel()
	e := peertest.StartClamd(t, "StreamMaxLength 1M", "MaxFileSize 900K")
	for _, tc := range []struct{ name, more, address string }{
		{"unix", "", "unix:" + e.Socket},
		{"TCP", "", e.Address},
		{"FILDES", "fildes = true", "unix:" + e.Socket},
	} {
		p := plugin(t, settings(tc.more, tc.address))
		expect := func(text, want string) {
			t.Helper()
			v, err := sdktest.Filter(t, p, Manifest(), message(text))
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			if got := show(v); !strings.HasPrefix(got, want) {
				t.Errorf("%s:\n got %s\nwant %s", tc.name, got, want)
			}
		}
		expect(head+"text\r\n", "continue  result=clean")
		expect(head, "continue  result=clean")
		expect("", "continue  result=clean")
		expect(head+peertest.EICAR()+"\r\n", "reject 554 5.7.1 Virus found: Eicar-Test-Signature.UNOFFICIAL ")
		expect(head+peertest.Virus+"\r\n", "reject 554 5.7.1 Virus found: Postern.Test.Virus.UNOFFICIAL ")
		expect(attached("a.zip", zip(t, "", peertest.Virus)), "reject 554 5.7.1 Virus found: Postern.Test.Virus.UNOFFICIAL ")
		expect(attached("a.zip", zip(t, "secret", peertest.Virus)), "quarantine encrypted, Heuristics.Encrypted.Zip ")
		// Bombs: what is nested too deep, and what is too large when it is unpacked.
		expect(attached("a.zip", nested(t, 25, peertest.Virus)), "quarantine too large, Heuristics.Limits.Exceeded.MaxRecursion ")
		expect(attached("a.gz", gzipped(strings.Repeat("0", 5<<20)+peertest.Virus)), "quarantine too large, Heuristics.Limits.Exceeded.MaxFileSize ")
		// What other filters put on top does not hide that this is mail.
		for _, top := range []string{"", "Authentication-Results: mx.test; spf=none\r\n", strings.Repeat("X-Long: "+strings.Repeat("x", 900)+"\r\n", 100)} {
			expect(top+strings.TrimSuffix(head, "\r\n")+"Content-Transfer-Encoding: base64\r\n\r\n"+base64.StdEncoding.EncodeToString([]byte(peertest.EICAR()))+"\r\n", "reject 554 5.7.1 Virus found: Eicar-Test-Signature.UNOFFICIAL ")
			expect(top+head+uuencoded(peertest.EICAR()), "reject 554 5.7.1 Virus found: Eicar-Test-Signature.UNOFFICIAL ")
		}
		expect(attached("a.png", "\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\xff\xff"), "quarantine broken, Heuristics.Broken.Media.PNG")
		if tc.more == "" {
			expect(head+strings.Repeat("0123456789abcde\n", 1<<16), "quarantine too large, StreamMaxLength ") // 1 MiB and the header
			expect(head+strings.Repeat("0123456789abcde\n", 4<<16), "quarantine too large, StreamMaxLength ")
		} else {
			expect(head+strings.Repeat("0123456789abcde\n", 1<<16-100), "quarantine too large, Heuristics.Limits.Exceeded.MaxFileSize ")
			expect(head+strings.Repeat("0123456789abcde\n", 4<<16), "quarantine too large, StreamMaxLength ") // sent, not handed over
		}
	}
}

// The next clamd is asked when one is gone or hangs; one that is back is used again.
func TestClamdFailover(t *testing.T) {
	t.Parallel()
	a, b := peertest.StartClamd(t), peertest.StartClamd(t)
	p := plugin(t, settings("", "unix:"+a.Socket, b.Address))
	infected := message(head + peertest.EICAR() + "\r\n")
	limit := 20 * time.Second // half of it for who hangs: the other one has ten seconds
	expect := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		v, err := p.Filter(ctx, infected)
		got := fmt.Sprint(err)
		if err == nil {
			got = v.Action.String() + v.Reason
		}
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	expect("reject")
	a.Stop()
	expect("reject")
	a.Restart()
	a.Freeze()
	expect("reject")
	b.Freeze()
	limit = 2 * time.Second
	expect("unscannedtimeout")
	limit = 20 * time.Second
	b.Stop()
	a.Stop()
	expect("no clamd scanned the message: ")
	a.Restart()
	expect("reject")
}

// attached is a message with an attachment.
func attached(name, content string) string {
	var b strings.Builder
	b.WriteString("From: a@example.net\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n" +
		"Content-Type: application/octet-stream; name=\"" + name + "\"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for e := base64.StdEncoding.EncodeToString([]byte(content)); e != ""; {
		n := min(76, len(e))
		b.WriteString(e[:n] + "\r\n")
		e = e[n:]
	}
	b.WriteString("--b--\r\n")
	return b.String()
}

// uuencoded is a file of up to 45 bytes a line, as uuencode(1) writes it.
func uuencoded(content string) string {
	const digits = "`!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"
	e := base64.NewEncoding(digits).WithPadding(base64.NoPadding)
	var b strings.Builder
	b.WriteString("begin 644 content.txt\r\n")
	for content != "" {
		n := min(45, len(content))
		whole := content[:n] + "\x00\x00\x00"[:(3-n%3)%3]
		b.WriteString(digits[n:n+1] + e.EncodeToString([]byte(whole)) + "\r\n")
		content = content[n:]
	}
	return b.String() + "`\r\nend\r\n"
}

// zip makes an archive, encrypted if there is a password.
func zip(t testing.TB, password, content string) string {
	t.Helper()
	program := peertest.Program(t, "zip")
	dir := t.TempDir()
	file := filepath.Join(dir, "a.zip")
	if err := os.WriteFile(filepath.Join(dir, "content"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", file, "content"}
	if password != "" {
		args = append([]string{"-P", password}, args...)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("zip: %v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// nested is a file in so many archives in each other.
func nested(t testing.TB, depth int, content string) string {
	t.Helper()
	for range depth {
		var b bytes.Buffer
		z := ziparchive.NewWriter(&b)
		w, err := z.Create("a.zip")
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(content))
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		content = b.String()
	}
	return content
}

func gzipped(content string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(content))
	z.Close()
	return b.String()
}
