package sdktest

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestHost(t *testing.T) {
	h, ctx, a := NewHost(t), t.Context(), mail.MustPath("a@example.org")
	body := strings.Repeat("0123456789abcde\n", 10_000)
	id, err := h.Handle.Submit(ctx, sdk.Submission{ReversePath: a, Recipients: []mail.Path{a, a}, Header: mail.NewHeader([]byte("Subject: x\r\n\r\n")), Body: strings.NewReader(body)})
	if err != nil || id == "" || h.Submitted[0].Body != body || h.Submitted[0].Origin != mail.Submitted || len(h.Submitted[0].Recipients) != 2 {
		t.Errorf("submitted: %q, %v", id, err)
	}
	if _, err := h.Handle.Submit(ctx, sdk.Submission{Recipients: []mail.Path{a}, Body: iotest.TimeoutReader(strings.NewReader(body))}); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a body that cannot be read: %v", err)
	}
	if len(h.Submitted) != 1 {
		t.Error("half a message was submitted")
	}
	h.Passwords["a@example.org"] = "secret"
	c := mail.Client{Addr: netip.MustParseAddr("192.0.2.1"), TLS: "TLS1.3"}
	if got, err := h.Handle.CheckPassword(ctx, c, "a@example.org", "secret"); err != nil || got != a {
		t.Errorf("the right password: %v, %v", got, err)
	}
	if _, err := h.Handle.CheckPassword(ctx, c, "a@example.org", "wrong"); mail.StatusOf(err).Code != 535 {
		t.Errorf("a wrong password: %v", err)
	}
	v, err := h.Handle.PutData(ctx, a, "k", []byte("x"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Handle.PutData(ctx, a, "k", []byte("y"), v-1); !errors.Is(err, sdk.ErrConflict) {
		t.Errorf("an old version: %v", err)
	}
	if err := h.Handle.DeleteData(ctx, a, "k", v); err != nil || len(h.Data) != 0 {
		t.Errorf("removal: %v", err)
	}
	if ok, err := h.Handle.CompareAndSwapState(ctx, "k", nil, []byte("1"), time.Minute); !ok || err != nil {
		t.Error(ok, err)
	}
	if n, err := h.Handle.CountState(ctx, "k", 2, 0); n != 3 || err != nil {
		t.Error(n, err)
	}
	h.Marks["a@example.org vacation"] = true
	if yes, err := h.Handle.Remembered(ctx, a, "vacation"); !yes || err != nil {
		t.Error(yes, err)
	}
	known := sdk.Account{Local: true, Targets: []mail.Path{a}, Info: &sdk.AccountInfo{Address: a, DisplayName: "Alice Ä.", Enabled: true,
		QuotaBytes: 5 << 30, QuotaMessages: 1000, Settings: map[string]string{"trash_days": "30"}}}
	h.Accounts[a] = known
	if got, err := h.Handle.Lookup(ctx, a); err != nil || !reflect.DeepEqual(got, known) {
		t.Errorf("lookup: %+v %v", got, err)
	}
	if got, err := h.Handle.Lookup(ctx, mail.MustPath("b@example.org")); err != nil || got.Local || got.Info != nil {
		t.Errorf("lookup of a stranger: %+v %v", got, err)
	}
	if err := h.Handle.Count(ctx, "asked", 2); err != nil || h.Counters["asked"] != 2 {
		t.Error(err)
	}
	h.Handle.Log(ctx, slog.LevelInfo, "said")
	if len(h.Lines) != 1 {
		t.Error(h.Lines)
	}
}

// Without a gateway nothing panics.
func TestNoHost(t *testing.T) {
	var h *sdk.Host
	ctx := context.Background()
	a := mail.MustPath("a@example.org")
	h.Log(ctx, slog.LevelDebug, "to the standard logger")
	for name, call := range map[string]func() error{
		"Submit":        func() error { _, err := h.Submit(ctx, sdk.Submission{}); return err },
		"Mechanisms":    func() error { _, err := h.Mechanisms(ctx); return err },
		"Login":         func() error { _, err := h.Login(ctx, "PLAIN", mail.Client{}); return err },
		"CheckPassword": func() error { _, err := h.CheckPassword(ctx, mail.Client{}, "", ""); return err },
		"Lookup":        func() error { _, err := h.Lookup(ctx, a); return err },
		"Data":          func() error { _, err := h.Data(ctx, a, "k"); return err },
		"PutData":       func() error { _, err := h.PutData(ctx, a, "k", nil, 0); return err },
		"DeleteData":    func() error { return h.DeleteData(ctx, a, "k", 0) },
		"ListData":      func() error { return h.ListData(ctx, a, "", nil) },
		"Certificate":   func() error { _, err := h.Certificate(ctx); return err },
		"TLSConfig":     func() error { _, err := h.TLSConfig(ctx); return err },
		"State":         func() error { _, _, err := h.State(ctx, "k"); return err },
		"SetState":      func() error { return h.SetState(ctx, "k", nil, 0) },
		"ForgetState":   func() error { return h.ForgetState(ctx, "k") },
		"CompareAndSwapState": func() error {
			_, err := h.CompareAndSwapState(ctx, "k", nil, nil, 0)
			return err
		},
		"CountState": func() error { _, err := h.CountState(ctx, "k", 1, 0); return err },
		"Count":      func() error { return h.Count(ctx, "n", 1) },
		"Remembered": func() error { _, err := h.Remembered(ctx, a, "k"); return err },
	} {
		if err := call(); !errors.Is(err, sdk.ErrNoHost) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
