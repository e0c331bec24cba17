package wire

import (
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

func TestCheckGate(t *testing.T) {
	no, later := mail.Permanent(550, 7, 1, "no"), mail.Temporary(450, 7, 1, "later")
	for name, v := range map[string]*sdk.Verdict{
		"continue":  sdk.Continue().Note("listed", "127.0.0.2"),
		"reject":    sdk.Reject(no),
		"tempfail":  sdk.Tempfail(later),
		"unscanned": sdk.Unscanned("DNS timed out"),
	} {
		if err := CheckGate(v, sdk.Manifest{May: sdk.MayReject}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, v := range map[string]*sdk.Verdict{
		"discard":           sdk.Discard("x"),
		"quarantine":        sdk.Quarantine("x"),
		"score":             sdk.Continue().Score("x", 1),
		"edit":              sdk.Continue().AddHeader("X", "y"),
		"for one":           sdk.Continue().For(0, sdk.Outcome{}),
		"reject with 450":   sdk.Reject(later),
		"tempfail with 550": sdk.Tempfail(no),
		"no status":         {Outcome: sdk.Outcome{Action: sdk.ActionReject}},
		"text of two lines": {Outcome: sdk.Outcome{Action: sdk.ActionReject, Status: mail.Status{Code: 550, Enhanced: [3]int{5}, Text: "a\r\n250 b"}}},
		"note of two lines": sdk.Continue().Note("x", "a\nb"),
		"note without name": sdk.Continue().Note("", "a"),
		"unknown action":    {Outcome: sdk.Outcome{Action: 9}},
		"note of no UTF-8":  sdk.Continue().Note("x", "\xff"),
		"name of two lines": sdk.Continue().Note("a\nb", "x"),
		"name with ESC":     sdk.Continue().Note("a\x1b", "x"),
	} {
		if err := CheckGate(v, sdk.Manifest{May: allRights}); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
	for _, v := range []*sdk.Verdict{sdk.Reject(no), sdk.Tempfail(later)} {
		if CheckGate(v, sdk.Manifest{May: allRights &^ sdk.MayReject}) == nil {
			t.Errorf("%s without the right to it passed", v.Action)
		}
	}
}

// Stages and the interface belong together, and the gateway has to know each stage.
func TestDescribeGate(t *testing.T) {
	for _, tt := range []struct {
		interfaces []string
		stages     uint32
		ok         bool
	}{
		{[]string{"gate"}, 1, true},
		{[]string{"gate"}, 15, true},
		{[]string{"gate"}, 16, false},
		{[]string{"gate"}, 256, false}, // 0 in eight bits
		{[]string{"gate"}, 257, false},
		{[]string{"gate"}, 0, false},
		{[]string{"filter"}, 1, false},
		{[]string{"filter", "gate"}, 4, true},
	} {
		d, err := Describe(&proto.Manifest{Name: "a", Interfaces: tt.interfaces, Stages: tt.stages})
		if (err == nil) != tt.ok || tt.ok && (!d.Gate || uint32(d.Manifest.Stages) != tt.stages) {
			t.Errorf("%v, stages %d: %+v, %v", tt.interfaces, tt.stages, d, err)
		}
	}
}
