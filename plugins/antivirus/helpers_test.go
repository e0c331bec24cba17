package antivirus

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

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
