package sdktest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/internal/draft"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/wire"
)

// Planner calls a planner as the gateway does: with a deadline, with a draft for new bodies if the
// manifest asks for it, for the one recipient of m. It fails the test when the plan breaks the
// contract or goes beyond the manifest. It returns the answer; for a new body see [Section].
func Planner(t testing.TB, p sdk.Planner, man sdk.Manifest, m *mail.Message) (*sdk.Plan, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d := draft.Draft{}
	if man.May&sdk.MayReplaceBody != 0 {
		d.Path = filepath.Join(t.TempDir(), "draft")
		if err := os.WriteFile(d.Path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := *m
	if man.Needs == sdk.NeedHeader {
		seen.Body = mail.Body{}
	}
	plan, err := p.Plan(draft.With(ctx, &d), &seen)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	if plan == nil {
		plan = &sdk.Plan{}
	}
	if err := wire.CheckPlan(plan, man); err != nil {
		t.Errorf("the plan breaks the contract: %v", err)
	}
	for i, a := range plan.Actions {
		if !a.NewBody.IsZero() && (a.NewBody.Draft != d.Path || !draft.WireForm(Section(t, a.NewBody))) {
			t.Errorf("the new body of action %d breaks the contract", i)
		}
	}
	return plan, nil
}

// Section reads a body of a plan that [Planner] returned.
func Section(t testing.TB, s sdk.Section) []byte {
	t.Helper()
	b, err := os.ReadFile(s.Draft)
	if err != nil {
		t.Fatal(err)
	}
	if s.Offset+s.Size > int64(len(b)) {
		t.Fatalf("the section ends at %d, the draft at %d", s.Offset+s.Size, len(b))
	}
	return b[s.Offset:][:s.Size]
}
