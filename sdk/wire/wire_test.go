package wire

import (
	"math"
	"strings"
	"testing"

	pb "google.golang.org/protobuf/proto"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

var someone = mail.MustPath("a@example.org")

func env(n int) *mail.Envelope { return &mail.Envelope{Recipients: make([]mail.Recipient, n)} }

// Each right is needed for what it names and for nothing else.
func TestCheckRights(t *testing.T) {
	tests := map[string]struct {
		v     *sdk.Verdict
		right sdk.Right
	}{
		"continue":   {sdk.Continue().Note("a", "b").Score("c", 1), 0},
		"unscanned":  {sdk.Unscanned("too large"), 0},
		"reject":     {sdk.Reject(mail.Permanent(550, 7, 1, "no")), sdk.MayReject},
		"tempfail":   {sdk.Tempfail(mail.Temporary(451, 7, 1, "later")), sdk.MayReject},
		"discard":    {sdk.Discard("spam"), sdk.MayDiscard},
		"quarantine": {sdk.Quarantine("virus"), sdk.MayQuarantine},
		"for one":    {sdk.Continue().For(0, sdk.Outcome{Action: sdk.ActionDiscard}), sdk.MayDiscard},
		"insert":     {sdk.Continue().AddHeader("X-A", "b"), sdk.MayEditHeader},
		"change":     {edits(sdk.Edit{Kind: sdk.HeaderChange, Name: "X-A"}), sdk.MayEditHeader},
		"remove":     {edits(sdk.Edit{Kind: sdk.HeaderRemove, Name: "X-A", Index: -1}), sdk.MayEditHeader},
		"add rcpt":   {edits(sdk.Edit{Kind: sdk.RecipientAdd, Path: someone}), sdk.MayEditRcpt},
		"drop rcpt":  {edits(sdk.Edit{Kind: sdk.RecipientRemove, Path: someone}), sdk.MayEditRcpt},
		"copy":       {sdk.Continue().AddCopy(someone, mail.Path{}), sdk.MayCopy},
		"reverse":    {edits(sdk.Edit{Kind: sdk.ReversePath}), sdk.MayEditReverse},
	}
	for name, tt := range tests {
		if err := Check(tt.v, sdk.Manifest{May: tt.right}, env(1)); err != nil {
			t.Errorf("%s with its right: %v", name, err)
		}
		if err := Check(tt.v, sdk.Manifest{May: allRights &^ tt.right}, env(1)); (err == nil) != (tt.right == 0) {
			t.Errorf("%s with every other right: %v", name, err)
		}
	}
}

func edits(e ...sdk.Edit) *sdk.Verdict { return &sdk.Verdict{Edits: e} }

func TestCheckRefuses(t *testing.T) {
	status := func(code, class int, text string) *sdk.Verdict {
		return &sdk.Verdict{Outcome: sdk.Outcome{Action: sdk.ActionReject, Status: mail.Status{Code: code, Enhanced: [3]int{class, 0, 0}, Text: text}}}
	}
	many := make(map[string]float64)
	for i := range maxFacts + 1 {
		many[strings.Repeat("x", i%100+1)+string(rune('0'+i/100))] = 1
	}
	tests := map[string]*sdk.Verdict{
		"code 999":           status(999, 9, ""),
		"code 499 to reject": status(499, 4, ""),
		"code 560":           status(560, 5, ""),
		"code 55":            status(55, 5, ""),
		"negative code":      status(-550, 5, ""),
		"classes differ":     status(550, 4, ""),
		"text of two lines":  status(550, 5, "a\nb"),
		"text too long":      status(550, 5, strings.Repeat("x", maxText+1)),
		"text in no UTF-8":   status(550, 5, "\xff"),
		"reject with 450":    sdk.Reject(mail.Temporary(450, 1, 1, "")),
		"tempfail with 550":  sdk.Tempfail(mail.Permanent(550, 1, 1, "")),
		"no status":          {Outcome: sdk.Outcome{Action: sdk.ActionTempfail}},
		"reason of lines":    sdk.Discard("a\r\nb"),
		"unknown action":     {Outcome: sdk.Outcome{Action: 6}},
		"recipient 3 of 3":   sdk.Continue().For(3, sdk.Outcome{}),
		"recipient -1":       sdk.Continue().For(-1, sdk.Outcome{}),
		"field name":         sdk.Continue().AddHeader("X:Y", "z"),
		"no field name":      sdk.Continue().AddHeader("", "z"),
		"field value":        sdk.Continue().AddHeader("X", "a\r\nBcc: b"),
		"NUL":                sdk.Continue().AddHeader("X", "a\x00"),
		"large field":        sdk.Continue().AddHeader("X", strings.Repeat("x", maxField+1)),
		"field -1":           edits(sdk.Edit{Kind: sdk.HeaderChange, Name: "X", Value: "y", Index: -1}),
		"copy to nobody":     sdk.Continue().AddCopy(mail.Path{}, someone),
		"kind 0":             edits(sdk.Edit{}),
		"kind 9":             edits(sdk.Edit{Kind: 9}),
		"draft":              edits(sdk.Edit{Kind: sdk.BodyReplace, BodyDraft: "x"}),
		"edit for nobody":    edits(sdk.Edit{Kind: sdk.Copy, Path: someone, Recipients: []int{3}}),
		"edit for many":      edits(sdk.Edit{Kind: sdk.Copy, Path: someone, Recipients: []int{0, 1, 2, 2}}),
		"copy of no draft":   edits(sdk.Edit{Kind: sdk.Copy, Path: someone, BodyDraft: "x", Value: "A: b\r\n\r\n"}),
		"copy of a header":   edits(sdk.Edit{Kind: sdk.Copy, Path: someone, Value: "A: b\r\n\r\n"}),
		"edits":              edits(make([]sdk.Edit, maxEdits+1)...),
		"NaN":                sdk.Continue().Score("x", math.NaN()),
		"infinity":           sdk.Continue().Score("x", math.Inf(-1)),
		"score without name": sdk.Continue().Score("", 1),
		"scores":             {Scores: many},
		"note of lines":      sdk.Continue().Note("x", "a\nb"),
		"name of note":       sdk.Continue().Note("a\x1b", "b"),
		"long note":          sdk.Continue().Note("x", strings.Repeat("x", maxNote+1)),
	}
	for name, v := range tests {
		if err := Check(v, sdk.Manifest{May: allRights}, env(3)); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
	for name, v := range map[string]*sdk.Verdict{
		"recipient 2 of 3": sdk.Continue().For(2, sdk.Outcome{}),
		"longest text":     status(550, 5, strings.Repeat("x", maxText)),
		"longest note":     sdk.Continue().Note("x", strings.Repeat("x", maxNote)),
		"largest field":    sdk.Continue().AddHeader("X", strings.Repeat("x", maxField)),
		"folded field":     sdk.Continue().AddHeader("X", "a\r\n\tb"),
	} {
		if err := Check(v, sdk.Manifest{May: allRights}, env(3)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDescribeRefuses(t *testing.T) {
	good := func() *proto.Manifest {
		return &proto.Manifest{Name: "a-1", Version: "1", Interfaces: []string{"filter", "of-the-future"}}
	}
	if d, err := Describe(good()); err != nil || !d.Filter || d.Mailbox {
		t.Fatal(d, err)
	}
	for name, spoil := range map[string]func(*proto.Manifest){
		"no name":       func(m *proto.Manifest) { m.Name = "" },
		"name":          func(m *proto.Manifest) { m.Name = "A b" },
		"long name":     func(m *proto.Manifest) { m.Name = strings.Repeat("a", 65) },
		"version":       func(m *proto.Manifest) { m.Version = "1\n2" },
		"need":          func(m *proto.Manifest) { m.Needs = 2 },
		"right":         func(m *proto.Manifest) { m.May = 1 << 20 },
		"origin":        func(m *proto.Manifest) { m.Origins = []proto.Origin{7} },
		"origin 0":      func(m *proto.Manifest) { m.Origins = []proto.Origin{0} },
		"no interface":  func(m *proto.Manifest) { m.Interfaces = nil },
		"none of ours":  func(m *proto.Manifest) { m.Interfaces = []string{"x"} },
		"origin of 257": func(m *proto.Manifest) { m.Origins = []proto.Origin{257} },
	} {
		m := good()
		spoil(m)
		if _, err := Describe(m); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
}

// Whatever bytes a plugin answers: no panic, and nothing unchecked comes out.
func FuzzVerdict(f *testing.F) {
	seed, _ := pb.Marshal(&proto.Verdict{
		Outcome:      &proto.Outcome{Action: 1, Status: &proto.Status{Code: 550, Enhanced: []int32{5, 1, 1}, Text: "x"}},
		PerRecipient: map[int32]*proto.Outcome{1: {Action: 3, Reason: "r"}},
		Edits:        []*proto.Edit{{Kind: 1, Name: "A", Value: []byte("b")}, {Kind: 6, Path: &proto.Path{Local: "a", Domain: "example.org"}}},
		Scores:       map[string]float64{"a": 1},
	})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var pv proto.Verdict
		if pb.Unmarshal(b, &pv) != nil {
			return
		}
		v, err := Verdict(&pv, sdk.Manifest{May: allRights}, env(3))
		if (v == nil) == (err == nil) {
			t.Fatal(v, err)
		}
		if v == nil {
			return
		}
		var h mail.Header
		for _, e := range v.Edits {
			if e.Kind == sdk.HeaderInsert {
				if err := h.Insert(e.Index, e.Name, e.Value); err != nil {
					t.Fatal(err)
				}
			}
		}
		if strings.ContainsAny(v.Status.Text, "\r\n") {
			t.Fatal(v.Status)
		}
	})
}
