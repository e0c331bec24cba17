package intake

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// A message in quarantine says on whose word, and is kept as long as the rules say; mail that
// is not held says nothing.
func TestQuarantineSaysWho(t *testing.T) {
	for name, c := range map[string]struct {
		outcome sdk.Outcome
		by      string
	}{
		"quarantine":                {sdk.Quarantine("odd").Outcome, "p"},
		"refused, others were not":  {sdk.Outcome{Action: sdk.ActionReject, Status: no}, "p"},
		"put off, others were not":  {sdk.Outcome{Action: sdk.ActionTempfail, Status: mail.Temporary(451, 7, 1, "later")}, ""},
		"nothing was said about it": {sdk.Outcome{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, only("b", c.outcome))
			rules := *r.in.rules.Load()
			rules.Quarantine = 7 * time.Hour
			r.in.Reload(rules)
			r.receive(envelope(mail.Incoming, "a@x.test", "b@x.test"), pipeline.SMTPClient, plain)
			es, recs := r.entries()
			for i, e := range es {
				by, want := e.Run.Notes[queue.QuarantineNote], ""
				if e.Envelope.Recipients[0].Path.Local == "b" {
					want = c.by
				}
				if by != want {
					t.Errorf("%v by %q, want %q", e.Envelope.Recipients, by, want)
				}
				if held := recs[i][0].State == queue.Held; held != (want != "") || held && (time.Until(recs[i][0].Expires) > 7*time.Hour || time.Until(recs[i][0].Expires) < 6*time.Hour) {
					t.Errorf("record %+v", recs[i][0])
				}
			}
		})
	}
}
