package pluginhost

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// owner owns what its settings say, besides what its manifest does.
type owner struct {
	cfg struct {
		Owns []string `toml:"owns"`
	}
}

func (o *owner) Configure(_ context.Context, c sdk.Config) error { return c.Decode(&o.cfg) }

func (o *owner) Owns() []string { return o.cfg.Owns }

func (o *owner) Filter(context.Context, *mail.Message) (*sdk.Verdict, error) {
	return sdk.Continue(), nil
}

// What a plugin owns is known with its settings, also while it is down, and follows them.
func TestOwns(t *testing.T) {
	t.Parallel()
	tm := fastTiming()
	tm.last, tm.young = time.Hour, time.Hour // who dies stays so
	spec := Spec{Name: "o", Use: "owner", Settings: []byte("owns = ['X-More*']")}
	h, _ := start(t, tm, spec)
	f := filterOf(t, h, "o")
	want := func(what string, owns ...string) {
		t.Helper()
		if got := f.Manifest().Owns; !slices.Equal(got, owns) {
			t.Errorf("%s: it owns %q", what, got)
		}
		if got := h.Status()[0].Owns; !slices.Equal(got, owns) {
			t.Errorf("%s: the status says that it owns %q", what, got)
		}
	}
	want("running", "X-Own", "X-More*")
	syscall.Kill(pidOf(t, h, "o"), syscall.SIGKILL)
	eventually(t, time.Minute, "down", func() bool { return pidOf(t, h, "o") == 0 })
	want("down", "X-Own", "X-More*")
	spec.Settings = nil
	if err := h.Reload(t.Context(), []Spec{spec}); err != nil {
		t.Fatal(err)
	}
	want("reloaded", "X-Own")
	spec.Settings = []byte("owns = ['Subject']")
	if err := h.Reload(t.Context(), []Spec{spec}); err == nil || !strings.Contains(err.Error(), `it cannot own the header field "Subject"`) {
		t.Errorf("settings that own Subject: %v", err)
	}
	want("not reloaded", "X-Own")
}
