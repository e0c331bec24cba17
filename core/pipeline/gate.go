package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/bits"
	"slices"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Gate is a plugin as a session asks it. The verdict has been checked against the plugin's
// rights; errors are as in [Filter].
type Gate interface {
	Gate(ctx context.Context, a *sdk.Attempt) (*sdk.Verdict, error)
}

// GateStep is a gate in its place.
type GateStep struct {
	Name      string
	Gate      Gate
	Stages    sdk.Stage     // when it is asked
	Origins   []mail.Origin // the mail it is asked about
	OnFailure FailurePolicy // see Filter
	// Filter says that the plugin is a filter as well. Where it has no answer and its mail is to
	// be parked, the session goes on then: it will see the message. Of a gate that is nothing
	// else park means tempfail, for there is nothing to keep.
	Filter bool
}

// Gates are the gates in the configuration's order. They are immutable and safe for
// concurrent use; a reload makes new ones. A stage that no gate asked for costs a look at
// an empty list.
type Gates struct {
	at    [4][]GateStep // by stage
	tally *Tally
	log   *slog.Logger
}

// NewGates returns the gates that steps describe. The tally counts what their failure
// policies decide; nil: nobody wants to know.
func NewGates(steps []GateStep, tally *Tally, log *slog.Logger) *Gates {
	if tally == nil {
		tally = &Tally{}
	}
	g := &Gates{tally: tally, log: log}
	for i := range g.at {
		for _, s := range steps {
			if s.Stages&(1<<i) != 0 {
				g.at[i] = append(g.at[i], s)
			}
		}
	}
	return g
}

// Any reports whether somebody is asked at one of these stages.
func (g *Gates) Any(stages sdk.Stage) bool {
	for i := range g.at {
		if stages&(1<<i) != 0 && len(g.at[i]) > 0 {
			return true
		}
	}
	return false
}

// maxNotes is how many bytes of notes gates may leave in a transaction. Those of RCPT could
// be as many as there are recipients.
const maxNotes = 32 << 10

var errNotes = errors.New("it notes more than a transaction may carry")

// Ask asks the gates of a.Stage, one after the other, until one refuses. A zero Status
// means "go on". What gates note is added to a.Envelope.Notes, which is replaced and never
// written into.
func (g *Gates) Ask(ctx context.Context, a *sdk.Attempt) mail.Status {
	for i := range g.at[bits.TrailingZeros8(uint8(a.Stage))] {
		s := &g.at[bits.TrailingZeros8(uint8(a.Stage))][i]
		if !slices.Contains(s.Origins, a.Envelope.Origin) {
			continue
		}
		v, err := s.Gate.Gate(ctx, a)
		if err == nil && v.Action == sdk.ActionUnscanned {
			err = &unscanned{v.Reason}
		}
		if v != nil && len(v.Notes) > 0 && !s.note(a, v.Notes) && v.Action == sdk.ActionContinue {
			err = errNotes
		}
		if err != nil {
			if st := g.failed(ctx, s, a, err); !st.IsZero() {
				return st
			}
			continue
		}
		if v.Action != sdk.ActionContinue {
			g.log.Info("refused by plugin", "plugin", s.Name, "stage", a.Stage.String(), "client", a.Envelope.Client.Addr, "status", v.Status.Error())
			return v.Status
		}
	}
	return mail.Status{}
}

// note adds notes to those of the transaction, all or none.
func (s *GateStep) note(a *sdk.Attempt, more map[string]string) bool {
	notes := make(map[string]string, len(a.Envelope.Notes)+len(more))
	maps.Copy(notes, a.Envelope.Notes)
	for name, note := range more {
		notes[s.Name+"/"+name] = note
	}
	size := 0
	for name, note := range notes {
		size += len(name) + len(note)
	}
	if size > maxNotes {
		return false
	}
	a.Envelope.Notes = notes
	return true
}

// failed does what the failure policy says where a gate gave no verdict.
func (g *Gates) failed(ctx context.Context, s *GateStep, a *sdk.Attempt, err error) mail.Status {
	if ctx.Err() != nil { // the session is being cut; nobody reads this
		return mail.Temporary(421, 3, 2, "Closing connection")
	}
	reason := reasonOf(err)
	choice := s.OnFailure.choose(reason, a.Envelope.Client.Class)
	if choice == FailPark && !s.Filter {
		choice = FailTempfail
	}
	g.tally.noAnswer(s.Name, choice)
	g.log.Warn("no verdict from plugin", "plugin", s.Name, "stage", a.Stage.String(), "client", a.Envelope.Client.Addr,
		"reason", string(reason), "error", err.Error(), "choice", string(choice))
	switch choice {
	case FailAccept:
		why := string(reason)
		var u *unscanned
		if errors.As(err, &u) {
			why = u.why
		}
		a.Envelope.Notes = with(a.Envelope.Notes, s.Name+"/unscanned", why)
		return mail.Status{}
	case FailReject:
		return mail.Permanent(554, 3, 0, "Cannot be checked")
	case FailPark:
		a.Envelope.Notes = with(a.Envelope.Notes, missedNote(s.Name, a.Stage), string(reason))
		return mail.Status{}
	}
	if a.Stage == sdk.AtConnect { // RFC 5321 §4.3.2: instead of a banner 421 or 554, no 451
		return mail.Temporary(421, 3, 0, "Cannot be checked now, try again later")
	}
	return mail.Temporary(451, 3, 0, "Cannot be checked now, try again later")
}

// missedNote is the name of the note that a plugin, a filter as well, gave no answer at a stage.
func missedNote(plugin string, stage sdk.Stage) string { return plugin + "/missed " + stage.String() }

// missed is what the trace says of a plugin that gave no answer at earlier stages; "": it did.
func missed(plugin string, notes map[string]string) string {
	text := ""
	for _, stage := range []sdk.Stage{sdk.AtConnect, sdk.AtHelo, sdk.AtMail, sdk.AtRcpt} {
		if reason, ok := notes[missedNote(plugin, stage)]; ok {
			if text != "" {
				text += ", "
			}
			text += stage.String() + " (" + reason + ")"
		}
	}
	if text != "" {
		text = "gave no answer at " + text
	}
	return text
}
