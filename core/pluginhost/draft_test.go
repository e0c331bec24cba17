package pluginhost

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// writer is a filter that writes new bodies as the Subject tells it.
type writer struct{}

func serveWriter() {
	sdk.Serve(writer{}, sdk.Manifest{Name: "writer", Version: "1.0", Needs: sdk.NeedBody, May: sdk.MayReplaceBody})
}

func (writer) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	word, arg, _ := strings.Cut(m.Header.Get("Subject"), " ")
	if word == "none" {
		return sdk.Continue(), nil
	}
	b, err := sdk.NewBody(ctx)
	if err != nil {
		return nil, err
	}
	switch word {
	case "write":
		io.WriteString(b, strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00").Replace(arg))
	case "big":
		for range 1 << 10 {
			b.Write(bytes.Repeat([]byte("0123456789abc\r\n."), 128))
		}
	case "half": // more than any buffer
		b.Write(bytes.Repeat([]byte("half\r\n"), 100_000))
		if arg == "error" {
			return nil, errors.New("as told")
		}
		if arg == "panic" {
			panic("as told")
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "other":
		return &sdk.Verdict{Edits: []sdk.Edit{{Kind: sdk.BodyReplace, BodyDraft: "/etc/passwd"}}}, nil
	case "unused":
		return sdk.Continue(), nil
	case "twice":
		if _, err := sdk.NewBody(ctx); err == nil {
			return sdk.Continue(), nil
		}
	case "swap": // what the host reads is its own file, whatever has the name now
		for _, name := range drafts(arg) {
			os.Remove(name)
			os.Symlink("/etc/passwd", name)
		}
		io.WriteString(b, "mine\r\n")
	}
	return sdk.Continue().ReplaceBody(b), nil
}

func drafts(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	return names
}

func TestDrafts(t *testing.T) {
	h, _ := start(t, fastTiming(), use("writer"))
	f := filterOf(t, h, "writer")
	const max = 1 << 20
	var kept string
	keep := func(r io.Reader) (mail.Body, error) {
		b, err := io.ReadAll(r)
		kept = string(b)
		return mail.InlineBody(b), err
	}
	for _, want := range []struct{ subject, body, reason, fault string }{
		{subject: "none"},
		{subject: "unused"},
		{subject: "write ", body: ""},
		{subject: `write a\r\nb\r\n`, body: "a\r\nb\r\n"},
		{subject: `write no end`, body: "no end"},
		{subject: `write a\nb`, reason: Error, fault: "bare LF"},
		{subject: `write a\rb`, reason: Error, fault: "bare CR"},
		{subject: `write a\r`, reason: Error, fault: "bare CR"},
		{subject: `write a\0b`, reason: Error, fault: "NUL"},
		{subject: "big", reason: Error, fault: "larger"},
		{subject: "half error", reason: Error, fault: "as told"},
		{subject: "half panic", reason: Error, fault: "as told"},
		{subject: "half kill", reason: Convicted},
		{subject: "other", reason: Error, fault: "draft that the gateway did not make"},
		{subject: "twice", body: ""},
		{subject: "swap " + string(h.drafts), body: "mine\r\n"},
	} {
		subject := want.subject
		kept = "nothing"
		v, body, err := f.Rewrite(t.Context(), msg(subject), max, keep)
		if want.reason != "" {
			if f := wantReason(t, err, want.reason); !strings.Contains(f.Error(), want.fault) || v != nil {
				t.Errorf("%s: %v", subject, err)
			}
		} else if err != nil {
			t.Errorf("%s: %v", subject, err)
		} else if len(v.Edits) == 0 {
			if kept != "nothing" || body.Size != 0 {
				t.Errorf("%s: kept %q", subject, kept)
			}
		} else if kept != want.body || string(body.Inline) != want.body {
			t.Errorf("%s: kept %q, want %q", subject, kept, want.body)
		}
		if left := drafts(string(h.drafts)); len(left) != 0 {
			t.Errorf("%s: drafts left: %v", subject, left)
		}
	}
	// What is wrong on our side is nobody's fault but ours.
	full := errors.New("disk full")
	_, _, err := f.Rewrite(t.Context(), msg("write x"), max, func(io.Reader) (mail.Body, error) { return mail.Body{}, full })
	var r interface{ Reason() string }
	if !errors.Is(err, full) || !errors.As(err, &r) || r.Reason() != "gateway" {
		t.Error(err)
	}
	if fi, err := os.Stat(string(h.drafts)); err != nil || fi.Mode().Perm() != 0o710 {
		t.Error(fi, err)
	}
	if err := errors.Join(os.Remove(string(h.drafts)), os.WriteFile(string(h.drafts), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, _, err = f.Rewrite(t.Context(), msg("none"), max, keep); !errors.As(err, &r) || r.Reason() != "gateway" {
		t.Error(err)
	}
	// Without somebody to keep it there is no draft.
	if _, err := f.Filter(t.Context(), msg("write x")); err == nil || !strings.Contains(err.Error(), "made no draft") {
		t.Error(err)
	}
}

// What a host that was killed left behind is gone when the next one has started.
func TestDraftsOfAPreviousHost(t *testing.T) {
	opt := options(t, &logBuffer{}, fastTiming())
	opt.DraftDir = filepath.Join(t.TempDir(), "drafts")
	old := filepath.Join(opt.DraftDir, "OLD")
	if err := os.MkdirAll(opt.DraftDir, 0o710); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	opt.Log = slog.New(slog.DiscardHandler)
	h, err := Start(t.Context(), opt, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	if left := drafts(opt.DraftDir); len(left) != 0 {
		t.Error(left)
	}
}
