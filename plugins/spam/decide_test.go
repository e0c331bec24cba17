package spam

import (
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// A threshold that is a score adds to what rspamd asks for, "off" takes it away, and
// SpamAssassin's verdict is no more than a score.
func TestDecide(t *testing.T) {
	t.Parallel()
	const (
		readme  = "quarantine = 10"
		scores  = "tag = 5\nquarantine = 10\nreject = 20"
		off     = "tag = 'off'\nquarantine = 'off'\nreject = 'off'"
		noHold  = "quarantine = 'off'\nreject = 20"
		atMost  = "tag = 5\nquarantine = 'off'\nreject = 'off'"
		holdAll = "quarantine = 10\nreject = 'off'"
	)
	for _, tc := range []struct {
		settings string
		action   action
		score    float64
		fate     fate
		by       rule
	}{
		// What rspamd asks for is done whatever the score.
		{readme, quarantining, 0, held, byAction},
		{scores, rejecting, 15, refused, byAction},
		{scores, rejecting, -1, refused, byAction},
		{scores, discarding, 0, discarded, byAction},
		{scores, rewriteSubject, 0, tagged, byAction},
		{scores, addHeader, 0, tagged, byAction},
		{scores, softReject, 0, deferred, byAction},
		{scores, greylisting, 0, deferred, byAction},
		{scores, noAction, 4.9, pass, ""},
		// A score adds to it, from the score on, and the severest counts.
		{scores, noAction, 5, tagged, byScore},
		{scores, noAction, 9.9, tagged, byScore},
		{scores, noAction, 10, held, byScore},
		{scores, addHeader, 10, held, byScore},
		{scores, softReject, 10, held, byScore},
		{scores, softReject, 9.9, deferred, byAction},
		{scores, greylisting, 20, refused, byScore},
		{scores, quarantining, 20, refused, byScore},
		{scores, discarding, 19.9, discarded, byAction},
		{scores, discarding, 20, refused, byScore},
		{scores, rejecting, 20, refused, byAction},
		// What is off happens by neither, and an action becomes the next milder one.
		{holdAll, rejecting, 3, held, byAction},
		{holdAll, discarding, 3, held, byAction},
		{holdAll, noAction, 1000, held, byScore},
		{noHold, quarantining, 15, tagged, byAction},
		{noHold, discarding, 15, discarded, byAction},
		{atMost, rejecting, 3, tagged, byAction},
		{atMost, discarding, 1000, tagged, byAction},
		{off, rejecting, 1000, pass, ""},
		{off, softReject, 0, deferred, byAction},
		{"tag = 'off'", quarantining, 0, held, byAction},
		{"tag = 'off'", rewriteSubject, 9, pass, ""},
		// "engine" is what is so without a word.
		{"", rejecting, 0, refused, byAction},
		{"", noAction, 1000, pass, ""},
		{"reject = 'engine'", rejecting, 0, refused, byAction},
	} {
		p := plugin(t, tc.settings)
		got := p.policy.decide(&result{action: tc.action, score: tc.score, required: 15}, tc.action == greylisting)
		if got != (ruling{tc.fate, tc.by}) {
			t.Errorf("%s: %s at %g: %v, want %v", tc.settings, tc.action, tc.score, got, ruling{tc.fate, tc.by})
		}
	}
	for _, tc := range []struct {
		settings string
		score    float64 // of 5
		want     ruling
	}{
		{"", 4.9, ruling{}},
		{"", 5, ruling{tagged, byAction}},
		{"", 1000, ruling{tagged, byAction}},
		{"tag = 'off'", 1000, ruling{}},
		{"tag = 8", 7.9, ruling{}},
		{"tag = 8", 8, ruling{tagged, byScore}},
		{"tag = 3", 3, ruling{tagged, byScore}},
		{scores, 10, ruling{held, byScore}},
		{scores, 20, ruling{refused, byScore}},
	} {
		r := &result{scoreOnly: true, score: tc.score, required: 5}
		if r.score >= r.required {
			r.action = addHeader
		}
		if got := plugin(t, tc.settings).policy.decide(r, false); got != tc.want {
			t.Errorf("SpamAssassin, %s: %g: %v, want %v", tc.settings, tc.score, got, tc.want)
		}
	}
}

// Domains follow the same rule, each threshold of theirs in place of the general one, and the
// trace says what decided.
func TestDomainsAdd(t *testing.T) {
	t.Parallel()
	const domains = "quarantine = 10\n[domains]\n\"strict.test\" = {reject = 2}\n\"off.test\" = {reject = \"off\"}\n\"engine.test\" = {quarantine = \"engine\"}\n"
	for _, tc := range []struct {
		action  string
		score   float64
		rcpts   []string
		want    []sdk.Action
		decided string
	}{
		{"reject", 3, []string{"a@example.org", "b@strict.test", "c@off.test"}, []sdk.Action{sdk.ActionReject, sdk.ActionReject, sdk.ActionQuarantine}, "action"},
		{"quarantine", 3, []string{"a@example.org", "b@strict.test"}, []sdk.Action{sdk.ActionQuarantine, sdk.ActionReject}, "action score"},
		{"no action", 10, []string{"a@example.org", "b@engine.test"}, []sdk.Action{sdk.ActionQuarantine, sdk.ActionContinue}, "score"},
		{"no action", 9, []string{"a@example.org"}, []sdk.Action{sdk.ActionContinue}, ""},
	} {
		p := plugin(t, says(t, judged(tc.action, tc.score, ""))+domains)
		v, err := sdktest.Filter(t, p, Manifest(), message(text, tc.rcpts...))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range tc.want {
			o, own := v.PerRecipient[i]
			if !own {
				o = v.Outcome
			}
			if o.Action != want {
				t.Errorf("%s at %g, %s: %s, want %s", tc.action, tc.score, tc.rcpts[i], o.Action, want)
			}
		}
		if v.Notes["decided"] != tc.decided {
			t.Errorf("%s at %g: decided by %q, want %q", tc.action, tc.score, v.Notes["decided"], tc.decided)
		}
	}
}

// What rspamd says for an action of its own is no reply to a refusal by score.
func TestReplyOfScore(t *testing.T) {
	t.Parallel()
	p := plugin(t, says(t, judged("greylist", 12, `,"messages":{"smtp_message":"Try again later"}`))+"reject = 10")
	m := message(text)
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := show(t, v, m, 0), "reject 554 5.7.1 Message is spam\n"+original; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
