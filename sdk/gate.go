package sdk

import (
	"context"

	"github.com/postern-mail/postern/sdk/mail"
)

// Stage is a set of moments in a client's session.
type Stage uint8

// The stages. The numbers are part of the protocol; do not reorder.
const (
	AtConnect Stage = 1 << iota // before the banner
	AtHelo                      // HELO, EHLO and LHLO
	AtMail                      // MAIL
	AtRcpt                      // each RCPT
)

// String is the name used in logs: the command.
func (s Stage) String() string {
	switch s {
	case AtConnect:
		return "connect"
	case AtHelo:
		return "HELO"
	case AtMail:
		return "MAIL"
	case AtRcpt:
		return "RCPT"
	}
	return "unknown"
}

// Gate judges clients while they are still talking, before there is a message. It is asked
// at the stages of Manifest.Stages, once the gateway itself has no objection, and the client
// waits for it: be quick.
type Gate interface {
	// Gate is called concurrently. The verdict is [Continue], [Reject], [Tempfail] or
	// [Unscanned], with notes if you like, and nothing else: edits, scores and outcomes for
	// single recipients are faults. Reject and Tempfail refuse what is attempted: the
	// connection, or this one command. An error is a failure of the plugin (its on_failure
	// decides), not a verdict. With park the session goes on if the plugin is a Filter as well,
	// which will see the message, with the note "NAME/missed RCPT" (HELO, ...) of its own; else
	// there is nothing to keep yet, and park means tempfail.
	//
	// Notes of connect and HELO hold for the session, those of MAIL and RCPT for the
	// transaction. Later gates find them in a.Envelope.Notes, filters in Message.Notes.
	Gate(ctx context.Context, a *Attempt) (*Verdict, error)
}

// Attempt is what a client is about to do. It is valid during the call only and must not
// be changed.
type Attempt struct {
	// Stage is one of those that the manifest asked for.
	Stage Stage
	// Envelope has what is known so far: from connect on the client's address, class and
	// listener, and the origin that a message would have; from HELO on Client.Helo; from
	// MAIL on the reverse-path and its parameters. It has no recipients: a call for each of
	// a thousand must not carry those before it.
	Envelope mail.Envelope
	// Recipient is what the client asks for at RCPT.
	Recipient mail.Path
	// Accepted is how many recipients the transaction has at RCPT.
	Accepted int
	// Size is what the client declared at MAIL, in bytes; 0 if it did not.
	Size int64
}
