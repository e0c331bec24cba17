package pluginhost

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestFilterEndToEnd(t *testing.T) {
	t.Parallel()
	h, _ := start(t, fastTiming(), Spec{Name: "f", Use: "filter", Settings: []byte("greeting = \"good day\"\n")})
	f := filterOf(t, h, "f")
	if m := f.Manifest(); m.Name != "filter" || m.May != sdk.MayReject {
		t.Errorf("manifest is %+v", m)
	}
	v, err := f.Filter(t.Context(), msg("look"))
	if err != nil {
		t.Fatal(err)
	}
	if v.Action != sdk.ActionContinue || v.Notes["greeting"] != "good day" {
		t.Errorf("verdict is %+v", v)
	}
	v, err = f.Filter(t.Context(), msg("reject not today"))
	if err != nil {
		t.Fatal(err)
	}
	if want := mail.Permanent(550, 7, 1, "not today"); v.Action != sdk.ActionReject || v.Status != want {
		t.Errorf("verdict is %+v", v)
	}
	if _, ok := h.Mailbox("f"); ok {
		t.Error("a filter is a mailbox")
	}
}

func TestMailboxEndToEnd(t *testing.T) {
	t.Parallel()
	h, _ := start(t, fastTiming(), use("box"))
	b, ok := h.Mailbox("box")
	if !ok {
		t.Fatal("no mailbox box")
	}
	deliver := func(folder string) error {
		return b.Deliver(t.Context(), &sdk.Delivery{Key: "k", Recipient: mail.MustPath("b@example.org"), Folder: folder, Message: msg("x")})
	}
	if err := deliver(""); err != nil {
		t.Error(err)
	}
	if s := mail.StatusOf(deliver("full")); s != mail.Temporary(452, 2, 2, "mailbox full") {
		t.Errorf("full mailbox: %v", s)
	}
	if s := mail.StatusOf(deliver("gone")); !s.Permanent() {
		t.Errorf("missing mailbox: %v", s)
	}
	err := deliver("broken")
	if f := wantReason(t, err, Error); !strings.Contains(f.Error(), "disk on fire") {
		t.Error(f)
	}
	if !mail.StatusOf(err).Temporary() {
		t.Error("a plugin's failure is not temporary")
	}
}

func TestContentByReference(t *testing.T) {
	t.Parallel()
	h, _ := start(t, fastTiming(), use("filter"), use("header"))
	file := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(file, []byte("HEADERbody in a fileTAIL"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := msg("body")
	m.Body = mail.Body{Path: file, Offset: 6, Size: 14}
	v, err := filterOf(t, h, "filter").Filter(t.Context(), m)
	if err != nil || v.Notes["body"] != "body in a file" {
		t.Errorf("plugin read %v, %v", v, err)
	}
	v, err = filterOf(t, h, "header").Filter(t.Context(), m)
	if err != nil || v.Notes["body"] != "" {
		t.Errorf("a plugin that needs the header only read %v, %v", v, err)
	}
}

// One plugin that cannot start, be found or be configured: nothing stays, and the error
// says which and why.
func TestG13WontStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := func(name string, mode os.FileMode, text string) []string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return []string{path}
	}
	tests := []struct {
		name  string
		spec  Spec
		want  string
		hangs bool
	}{
		{"missing binary", Spec{Command: []string{filepath.Join(dir, "nowhere")}}, "no such file", false},
		{"not executable", Spec{Command: script("plain", 0o600, "#!/bin/sh\n")}, "permission denied", false},
		{"not a program", Spec{Command: script("text", 0o700, "hello\n")}, "exec format error", false},
		{"relative", Spec{Command: []string{"x"}}, "not an absolute path", false},
		{"exits 0", Spec{Use: "exit0"}, "ended before the handshake (exit status 0)", false},
		{"exits 7", Spec{Use: "exit7"}, "the licence has expired", false},
		{"mute", Spec{Use: "mute"}, "did not print its handshake within", true},
		{"chatter", Spec{Use: "chatter"}, "xxxx", true},
		{"wrong version", Spec{Use: "version"}, "Plugin version: 99", false},
		{"tcp", Spec{Use: "tcp"}, "PLUGIN_UNIX_SOCKET_DIR", false},
		{"another's socket", Spec{Use: "elsewhere"}, "PLUGIN_UNIX_SOCKET_DIR", false},
		{"bad settings", Spec{Use: "filter", Settings: []byte("greting = 1\n")}, `unknown key "greting"`, false},
		{"wrong type", Spec{Use: "filter", Settings: []byte("greeting = 1\n")}, `"greeting"`, false},
		{"refuses", Spec{Use: "filter", Settings: []byte("fail = 'set the url'\n")}, "set the url", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tm := fastTiming()
			if tt.hangs {
				tm.start = time.Second
			}
			log := &logBuffer{}
			opt := options(t, log, tm)
			tt.spec.Name = "bad-one"
			_, err := Start(t.Context(), opt, []Spec{use("filter"), tt.spec, use("box")})
			if err == nil {
				t.Fatal("the host started")
			}
			if !strings.Contains(err.Error(), `plugin "bad-one"`) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is: %v", err)
			}
			names, _ := os.ReadDir(opt.RunDir)
			for _, n := range names {
				if n.Name() != "lock" {
					t.Errorf("%s is left in the run directory", n)
				}
			}
		})
	}
}

// Prints before the handshake are tolerated and logged.
func TestStdoutNoiseBeforeHandshake(t *testing.T) {
	t.Parallel()
	h, log := start(t, fastTiming(), use("noisy"))
	if _, err := filterOf(t, h, "noisy").Filter(t.Context(), msg("look")); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "hello from the noisy plugin") {
		t.Error("the noise is not logged")
	}
}

func TestRunDirIsOurs(t *testing.T) {
	t.Parallel()
	opt := options(t, &logBuffer{}, fastTiming())
	h, err := Start(t.Context(), opt, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	fi, err := os.Stat(opt.RunDir)
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("run directory: %v, %v", fi.Mode(), err)
	}
	if _, err := Start(t.Context(), opt, nil); err == nil || !strings.Contains(err.Error(), "used by another") {
		t.Errorf("second host: %v", err)
	}
}

// TestG17SocketDirectory: nobody but the user of the gateway reaches a plugin's socket.
func TestG17SocketDirectory(t *testing.T) {
	t.Parallel()
	opt := options(t, &logBuffer{}, fastTiming())
	// A directory that exists and is too open, and too long for sockets as well.
	opt.RunDir = filepath.Join(t.TempDir(), strings.Repeat("long", 20))
	if err := os.Mkdir(opt.RunDir, 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := Start(t.Context(), opt, []Spec{use("filter")})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	sockets := h.supervisor("filter").cur.Load().child.SocketDir()
	short := filepath.Dir(sockets)
	for _, dir := range []string{sockets, short} {
		if fi, err := os.Lstat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("socket directory: %v, %v", fi, err)
		}
	}
	if fi, err := os.Stat(opt.RunDir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("run directory: %v, %v", fi.Mode(), err)
	}
	h.Close(t.Context())
	if _, err := os.Stat(short); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", short, err)
	}
}
