package pipeline

import (
	"errors"
	"fmt"

	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// Reason says why a plugin gave no verdict.
type Reason string

// The reasons, as in the configuration.
const (
	Down    Reason = "down"    // not running, or died
	Timeout Reason = "timeout" // did not answer in time
	Error   Reason = "error"   // answered with an error, or against its rights, or "unscanned"
)

// OnFailure is what to do with a message that a plugin gave no verdict on.
type OnFailure string

// The choices, as in the configuration.
const (
	FailTempfail OnFailure = "tempfail" // 451; the default
	FailReject   OnFailure = "reject"   // 554
	FailAccept   OnFailure = "accept"   // go on, marked as unscanned
	FailPark     OnFailure = "park"     // accept, and wait for the plugin
)

// FailurePolicy chooses by reason first, then by class of sender, then the default.
type FailurePolicy struct {
	Default  OnFailure // "" is tempfail
	ByClass  map[mail.Class]OnFailure
	ByReason map[Reason]OnFailure
}

func (f FailurePolicy) choose(reason Reason, class mail.Class) OnFailure {
	if c, ok := f.ByReason[reason]; ok {
		return c
	}
	if c, ok := f.ByClass[class]; ok {
		return c
	}
	if f.Default == "" {
		return FailTempfail
	}
	return f.Default
}

// failed gives v the disposition that the failure policy has chosen. What the plugin said
// stays in the log: the client learns no more than that it should try again.
func (s *Step) failed(v Version, choice OnFailure, err error, event *trace.Event) Version {
	reason := reasonOf(err)
	event.Action = "failed: " + string(choice)
	event.Reason = fmt.Sprintf("%s: %v", reason, err)
	switch choice {
	case FailReject:
		v.Disposition, v.Status, v.By = Reject, mail.Permanent(554, 3, 0, "Message cannot be checked"), s.Name
	case FailAccept:
		why := string(reason)
		var u *unscanned
		if errors.As(err, &u) {
			why = u.why
		}
		v.Run.Notes = with(v.Run.Notes, s.Name+"/unscanned", why)
		v.Run.Done = done(v.Run.Done, s.Name)
		// The reason may be a plugin's text; Prepend refuses what would not be one field.
		if v.Header.Prepend("X-Postern-Unscanned", s.Name+" ("+why+")") != nil {
			v.Header.Prepend("X-Postern-Unscanned", s.Name+" ("+string(reason)+")")
		}
	case FailPark:
		v.Disposition, v.Reason = Park, fmt.Sprintf("waits for plugin %s (%s)", s.Name, reason)
	default:
		v.Disposition, v.Status = Defer, mail.Temporary(451, 3, 0, "Message cannot be checked now, try again later")
		v.Reason = fmt.Sprintf("waits for plugin %s (%s)", s.Name, reason)
	}
	return v
}
