package pipeline

import (
	"slices"

	"github.com/postern-mail/postern/sdk/mail"
)

// Client says who waits for the outcome of a run.
type Client uint8

// The clients.
const (
	NoClient   Client = iota // nobody: the message is in the queue already
	SMTPClient               // one reply for all recipients
	LMTPClient               // one reply for each recipient
)

// Settlement is the outcome of a run once it is known who waits.
type Settlement struct {
	// Reply is the one reply of an SMTP client; a zero Status stands for "accepted".
	Reply mail.Status
	// PerRecipient are the replies of an LMTP client, by recipient of the message.
	PerRecipient []mail.Status
	// Versions are those the gateway has accepted. Of these, Reject means that the sender
	// has to be told, or the message held, and Defer does not occur.
	Versions []Version
}

// Settle folds what became of the n recipients of a message into replies.
//
// All recipients rejected: 5yz. None accepted and any deferred: 451. Any accepted: 250,
// and from then on, as wherever no client waits, Defer means Park. LMTP clients are
// answered for each recipient. Copies count nowhere, and go when every original recipient
// was refused or deferred.
func Settle(versions []Version, n int, client Client) Settlement {
	s := Settlement{PerRecipient: make([]mail.Status, n)}
	accepted := client == NoClient
	var refusal, deferral mail.Status
	for _, v := range versions {
		if v.Class.IsCopy() {
			continue
		}
		for _, r := range v.Recipients {
			if r.From < 0 {
				continue
			}
			switch v.Disposition {
			case Reject:
				s.PerRecipient[r.From] = v.Status
				if refusal.IsZero() {
					refusal = v.Status
				}
			case Defer:
				s.PerRecipient[r.From] = v.Status
				if deferral.IsZero() {
					deferral = v.Status
				}
			default:
				accepted = true
			}
		}
	}
	switch {
	case accepted:
	case !deferral.IsZero():
		s.Reply = deferral
		return s
	case !refusal.IsZero():
		s.Reply = refusal
		return s
	}
	for _, v := range versions {
		if v.Disposition == Reject || v.Disposition == Defer {
			if client == LMTPClient && !v.Class.IsCopy() {
				v.Recipients = slices.DeleteFunc(slices.Clone(v.Recipients), func(r Recipient) bool { return r.From >= 0 })
				if len(v.Recipients) == 0 {
					continue
				}
			}
			if v.Disposition == Defer {
				v.Disposition, v.Status = Park, mail.Status{}
			}
		}
		s.Versions = append(s.Versions, v)
	}
	return s
}
