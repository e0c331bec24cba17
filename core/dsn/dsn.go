// Package dsn writes delivery status notifications (RFC 3464, RFC 6533): what a gateway
// tells a sender about the fate of a message.
//
// [Wanted] and [SuccessAction] say who gets one, [Build] writes it. A report never answers
// a null reverse-path, so reports beget no reports (RFC 5321 §6.1). Whatever a peer or a
// sender put into a field comes out printable and on its own line; the report has CRLF
// line ends and no line above 998 octets. The returned content is bounded: at most 50 kB
// of the original, and about 1 kB for each recipient.
//
// The package keeps no state and sends nothing: intake queues the report, with the null
// reverse-path, to whoever the reverse-path stands for.
package dsn

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// maxOriginal is how much of the original is returned, in octets (L-06).
const maxOriginal = 50 << 10

// Action is what happened to a recipient (RFC 3464 §2.3.3).
type Action uint8

// The actions.
const (
	Failed    Action = iota + 1 // refused for good
	Expired                     // not delivered within its lifetime; "failed" in the report
	Delayed                     // not delivered yet
	Delivered                   // in the mailbox
	Relayed                     // given to a host that will not report success
)

// String is the word of the Action field.
func (a Action) String() string {
	switch a {
	case Failed, Expired:
		return "failed"
	case Delayed:
		return "delayed"
	case Delivered:
		return "delivered"
	case Relayed:
		return "relayed"
	}
	return "unknown"
}

func (a Action) failure() bool { return a == Failed || a == Expired }
func (a Action) success() bool { return a == Delivered || a == Relayed }

// Wanted reports whether the sender is to hear of an action on one recipient (RFC 3461
// §4.1): never with a null reverse-path; without NOTIFY of failures and delays.
func Wanted(reverse mail.Path, n mail.Notify, a Action) bool {
	if reverse.IsZero() || n&mail.NotifyNever != 0 {
		return false
	}
	switch {
	case a.failure():
		return n == 0 || n&mail.NotifyFailure != 0
	case a == Delayed:
		return n == 0 || n&mail.NotifyDelay != 0
	case a.success():
		return n&mail.NotifySuccess != 0
	}
	return false
}

// SuccessAction is the action to report for a recipient whose mail was taken: delivered by
// a mailbox (final), relayed by a host. ok is false for a host that took over the duty to
// report (RFC 3461 §5.2.2).
func SuccessAction(final, hopReports bool) (a Action, ok bool) {
	switch {
	case final:
		return Delivered, true
	case hopReports:
		return 0, false
	}
	return Relayed, true
}

// Options are the facts about ourselves.
type Options struct {
	Hostname   string    // Reporting-MTA
	Postmaster mail.Path // whom to ask; zero: postmaster at Hostname
	Now        time.Time
	// MessageID of the report, with its angle brackets. Default: a random one.
	MessageID string
}

// Report is what a notification is about: one message and some of its recipients. All
// recipients have the same kind of action: failures, delays or successes.
type Report struct {
	ID          string // queue id of the message
	ReversePath mail.Path
	EnvelopeID  string // ENVID, decoded
	Return      mail.Return
	UTF8        bool // the message came with SMTPUTF8
	Arrival     time.Time
	Header      mail.Header
	Body        mail.Body
	Recipients  []Recipient
}

// Recipient is the fate of one recipient.
type Recipient struct {
	Path     mail.Path
	Original mail.Path // the address the client gave, where an alias led to Path
	ORCPT    string    // "type;address", decoded
	Action   Action
	Status   mail.Status // of the last attempt; its Remote is the Remote-MTA
	// LastAttempt is when Status came; may be zero. WillRetryUntil is for delays.
	LastAttempt, WillRetryUntil time.Time
}

// Message is a finished report. Its reverse-path is null.
type Message struct {
	Header   mail.Header
	Body     mail.Body
	UTF8     bool // needs SMTPUTF8
	EightBit bool // needs 8BITMIME
}

// Build writes a report. The error says that there must be none: the reverse-path is null
// or nobody is reported on.
func Build(o Options, r Report) (*Message, error) {
	switch {
	case r.ReversePath.IsZero():
		return nil, errors.New("dsn: no report for a null reverse-path")
	case len(r.Recipients) == 0:
		return nil, errors.New("dsn: nobody to report on")
	}
	if o.Postmaster.IsZero() {
		if p, err := mail.MakePath("postmaster", o.Hostname); err == nil {
			o.Postmaster = p
		}
	}
	if o.MessageID == "" {
		var b [12]byte
		rand.Read(b[:])
		o.MessageID = fmt.Sprintf("<%s.%d@%s>", hex.EncodeToString(b[:]), o.Now.Unix(), o.Hostname)
	}
	w := &writer{o: &o, r: &r, kind: r.Recipients[0].Action}
	w.utf8 = r.UTF8 || !r.ReversePath.IsASCII()
	text := w.text()
	status := w.status()
	original := w.original()
	body := w.multipart(text, status, original)
	m := &Message{Body: mail.InlineBody(body), UTF8: w.utf8}
	m.EightBit = !isASCII(body)
	m.Header = mail.NewHeader(w.header(m.EightBit))
	return m, nil
}

// header is the header of the report.
func (w *writer) header(eightBit bool) []byte {
	var b strings.Builder
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	field("From", "Mail Delivery System <MAILER-DAEMON@"+w.o.Hostname+">")
	field("To", "<"+w.r.ReversePath.String()+">")
	field("Subject", w.subject())
	field("Date", w.o.Now.Format(time.RFC1123Z))
	field("Message-ID", w.o.MessageID)
	field("Auto-Submitted", "auto-replied") // RFC 3834 §5
	if id := w.r.Header.Get("Message-Id"); isMessageID(id) {
		field("In-Reply-To", id) // RFC 3834 §3.1.4
	}
	field("MIME-Version", "1.0")
	typ := "delivery-status"
	if w.utf8 {
		typ = "global-delivery-status" // RFC 6533 §6
	}
	field("Content-Type", "multipart/report; report-type="+typ+";\r\n\tboundary=\""+w.boundary+"\"")
	if eightBit {
		field("Content-Transfer-Encoding", "8bit")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// isMessageID reports whether id can be repeated as it is.
func isMessageID(id string) bool {
	if len(id) < 5 || len(id) > 500 || id[0] != '<' || id[len(id)-1] != '>' {
		return false
	}
	for i := 0; i < len(id); i++ {
		if id[i] <= ' ' || id[i] >= 0x7f {
			return false
		}
	}
	return strings.Count(id, "@") == 1 && strings.Count(id, "<") == 1 && strings.Count(id, ">") == 1
}

// multipart puts the parts together with a boundary that occurs in none of them.
func (w *writer) multipart(parts ...part) []byte {
	for n := 0; ; n++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", w.o.MessageID, n))
		w.boundary = "=_" + hex.EncodeToString(sum[:15])
		if !contains(parts, w.boundary) {
			break
		}
	}
	var b strings.Builder
	b.WriteString("This is a report in MIME format (RFC 3464).\r\n")
	for _, p := range parts {
		fmt.Fprintf(&b, "\r\n--%s\r\nContent-Description: %s\r\nContent-Type: %s\r\n", w.boundary, p.description, p.typ)
		if !isASCII(p.content) {
			b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
		}
		b.WriteString("\r\n")
		b.Write(p.content)
	}
	fmt.Fprintf(&b, "\r\n--%s--\r\n", w.boundary)
	return []byte(b.String())
}
