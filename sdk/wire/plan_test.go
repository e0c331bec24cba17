package wire

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

func TestCheckPlan(t *testing.T) {
	all := sdk.Manifest{May: allRights, Host: sdk.MaySubmit}
	to := mail.MustPath("a@example.org")
	header := mail.NewHeader([]byte("Subject: x\r\n\r\n"))
	reject := mail.Permanent(550, 7, 1, "no")
	body := sdk.Section{Draft: "d", Offset: 1, Size: 2}
	times := func(n int, add func(*sdk.Plan)) *sdk.Plan {
		p := &sdk.Plan{}
		for range n {
			add(p)
		}
		return p
	}
	plan := func() *sdk.Plan { return &sdk.Plan{} }
	own := func(p *sdk.Plan) *sdk.Plan {
		p.Actions[len(p.Actions)-1].Own = true
		return p
	}
	for name, tt := range map[string]struct {
		plan *sdk.Plan
		man  sdk.Manifest
		ok   bool
	}{
		"nothing":           {plan(), sdk.Manifest{}, true},
		"keep":              {plan().Keep("a/b", `\Seen`, "$x"), sdk.Manifest{}, true},
		"made folder":       {plan().File("a/b"), sdk.Manifest{}, true},
		"two lines":         {plan().Keep("a\nb"), all, false},
		"flag":              {plan().Keep("", "a b"), all, false},
		"long folder":       {plan().Keep(strings.Repeat("x", maxFolder+1)), all, false},
		"all of it":         {plan().Keep("").Redirect(to).Discard("x").Vacation(header, nil).Notify(to, header, []byte("a\r\n")).AndRemember("k", time.Hour), all, true},
		"redirect, right":   {plan().Redirect(to), sdk.Manifest{}, false},
		"discard, right":    {plan().Discard("x"), sdk.Manifest{}, false},
		"reject, right":     {plan().Reject(reject), sdk.Manifest{}, false},
		"vacation, right":   {plan().Vacation(header, nil), sdk.Manifest{May: allRights}, false},
		"redirect nowhere":  {plan().Redirect(mail.Path{}), all, false},
		"reject":            {plan().Reject(reject).AndRemember("k", time.Hour), all, true},
		"reject and keep":   {plan().Reject(reject).Keep(""), all, false},
		"reject for now":    {plan().Reject(mail.Temporary(450, 7, 1, "no")), all, false},
		"no header":         {plan().Vacation(mail.Header{}, nil), all, false},
		"bare LF in header": {plan().Vacation(mail.NewHeader([]byte("Subject: x\nBcc: y\r\n\r\n")), nil), all, false},
		"bare LF in body":   {plan().Vacation(header, []byte("a\n")), all, false},
		"large body":        {plan().Vacation(header, make([]byte, proto.MaxInline+1)), all, false},
		"32 redirects":      {times(maxRedirects, func(p *sdk.Plan) { p.Redirect(to) }), all, true},
		"33 redirects":      {times(maxRedirects+1, func(p *sdk.Plan) { p.Redirect(to) }), all, false},
		"8 messages":        {times(maxMessages, func(p *sdk.Plan) { p.Notify(to, header, nil) }), all, true},
		"9 messages":        {times(maxMessages+1, func(p *sdk.Plan) { p.Notify(to, header, nil) }), all, false},
		"no key":            {plan().AndRemember("", time.Hour), all, false},
		"reject, notify":    {plan().Reject(reject).Notify(to, header, nil), all, true},
		"two rejects":       {plan().Reject(reject).Reject(reject).Notify(to, header, nil), all, false},
		"new header":        {plan().Keep("a").WithHeader(header), all, true},
		"header, right":     {plan().Keep("a").WithHeader(header), sdk.Manifest{May: allRights &^ sdk.MayEditHeader}, false},
		"header and body":   {plan().Keep("a").WithHeader(mail.NewHeader([]byte("Subject: x\r\n\r\nbody"))), all, false},
		"header, bare LF":   {plan().Redirect(to).WithHeader(mail.NewHeader([]byte("Subject: x\n y\r\n\r\n"))), all, false},
		"large header":      {plan().Keep("").WithHeader(mail.NewHeader([]byte("X: " + strings.Repeat("x", proto.MaxHeader) + "\r\n\r\n"))), all, false},
		"new body":          {plan().Redirect(to).WithBody(body), all, true},
		"body, right":       {plan().Redirect(to).WithBody(body), sdk.Manifest{May: allRights &^ sdk.MayReplaceBody}, false},
		"body of a reply":   {plan().Vacation(header, nil).WithBody(body), all, false},
		"body before it":    {plan().Keep("").WithBody(sdk.Section{Draft: "d", Offset: -1}), all, false},
		"16 notes":          {times(maxPlanNotes, func(p *sdk.Plan) { p.Note("x") }), sdk.Manifest{}, true},
		"17 notes":          {times(maxPlanNotes+1, func(p *sdk.Plan) { p.Note("x") }), sdk.Manifest{}, false},
		"note of two lines": {plan().Note("a\nb"), sdk.Manifest{}, false},
		"own":               {own(plan().Keep("a").WithHeader(header).WithBody(body)), all, true},
		"own, no header":    {own(plan().Keep("a").WithBody(body)), all, false},
		"own, no body":      {own(plan().Keep("a").WithHeader(header)), all, false},
		"own redirect":      {own(plan().Redirect(to).WithHeader(header).WithBody(body)), all, false},
		"own and reject":    {own(plan().Reject(reject).Notify(to, header, nil).Keep("a").WithHeader(header).WithBody(body)), all, true},
		"not own, reject":   {plan().Reject(reject).Keep("a").WithHeader(header).WithBody(body), all, false},
		"no time":           {plan().AndRemember("k", 0), all, false},
		"unknown":           {&sdk.Plan{Actions: []sdk.PlanAction{{Kind: 99}}}, all, false},
	} {
		if err := CheckPlan(tt.plan, tt.man); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Plan(&proto.PlanResponse{Actions: []*proto.PlanAction{{Kind: 257}}}, all); err == nil { // 1 in eight bits
		t.Error("kind 257 is known")
	}
	answer := &proto.PlanResponse{Actions: []*proto.PlanAction{{Kind: proto.PlanKind_PLAN_KEEP, NewBody: &proto.Section{Draft: "d"}}}}
	for draft, ok := range map[string]bool{"d": true, "other": false, "": false} {
		if _, err := PlanDraft(answer, all, draft); (err == nil) != ok {
			t.Errorf("draft %q: %v", draft, err)
		}
	}
}
