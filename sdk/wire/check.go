package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Limits of one verdict.
const (
	maxEdits = 1000
	maxFacts = 1000     // scores, and notes
	maxName  = 128      // name of a score or note, in bytes
	maxNote  = 4 << 10  // bytes
	maxText  = 512      // reply text or reason, in bytes
	maxField = 64 << 10 // value of a header field, in bytes
)

// Check holds a verdict about a message with that envelope against the contract and
// the plugin's manifest: rights, ranges, sizes, and whatever could reach the wire. It
// refuses a new body: there was no draft for one.
func Check(v *sdk.Verdict, m sdk.Manifest, env *mail.Envelope) error {
	return CheckDraft(v, m, env, "")
}

// CheckDraft is Check where the host made a draft for the call. A new body has to be in
// that draft; what is in it is for the host to check.
func CheckDraft(v *sdk.Verdict, m sdk.Manifest, env *mail.Envelope, draft string) error {
	if err := checkOutcome(v.Outcome, m.May); err != nil {
		return err
	}
	for i, o := range v.PerRecipient {
		if i < 0 || i >= len(env.Recipients) {
			return fmt.Errorf("there is no recipient %d", i)
		}
		if err := checkOutcome(o, m.May); err != nil {
			return fmt.Errorf("recipient %d: %w", i, err)
		}
	}
	if len(v.Edits) > maxEdits {
		return fmt.Errorf("%d edits are too many", len(v.Edits))
	}
	for i, e := range v.Edits {
		if err := checkEdit(e, m.May, len(env.Recipients), draft); err != nil {
			return fmt.Errorf("edit %d: %w", i, err)
		}
	}
	return checkFacts(v)
}

// CheckGate holds a gate's verdict against the contract and the plugin's manifest. There
// is no message yet: it can be refused or not.
func CheckGate(v *sdk.Verdict, m sdk.Manifest) error {
	switch v.Action {
	case sdk.ActionContinue, sdk.ActionReject, sdk.ActionTempfail, sdk.ActionUnscanned:
	default:
		return fmt.Errorf("a gate cannot %s", v.Action)
	}
	if len(v.PerRecipient) > 0 || len(v.Edits) > 0 || len(v.Scores) > 0 {
		return errors.New("a gate has no edits, scores or outcomes for single recipients")
	}
	return Check(v, m, &mail.Envelope{})
}

func checkOutcome(o sdk.Outcome, may sdk.Right) error {
	need := rightFor(o.Action)
	if may&need != need {
		return fmt.Errorf("the manifest does not declare the right to %s", o.Action)
	}
	switch o.Action {
	case sdk.ActionContinue:
		return nil
	case sdk.ActionReject:
		return checkStatus(o.Status, 5, 5)
	case sdk.ActionTempfail:
		return checkStatus(o.Status, 4, 4)
	case sdk.ActionDiscard, sdk.ActionQuarantine, sdk.ActionUnscanned:
		if !isLine(o.Reason, maxText) {
			return fmt.Errorf("the reason of %s is not a line of text", o.Action)
		}
		return nil
	}
	return fmt.Errorf("action %d is unknown", o.Action)
}

func rightFor(a sdk.Action) sdk.Right {
	switch a {
	case sdk.ActionReject, sdk.ActionTempfail:
		return sdk.MayReject
	case sdk.ActionDiscard:
		return sdk.MayDiscard
	case sdk.ActionQuarantine:
		return sdk.MayQuarantine
	}
	return 0
}

// checkStatus accepts reply codes of the classes from and to.
func checkStatus(s mail.Status, from, to int) error {
	class := s.Code / 100
	if s.Code < 100 || class < from || class > to || s.Code%100 > 59 {
		return fmt.Errorf("reply code %d is not one of %dyz", s.Code, from)
	}
	if s.Enhanced[0] != class || s.Enhanced[1] < 0 || s.Enhanced[1] > 999 || s.Enhanced[2] < 0 || s.Enhanced[2] > 999 {
		return fmt.Errorf("enhanced status code %s does not fit reply code %d", s.EnhancedString(), s.Code)
	}
	if !isLine(s.Text, maxText) || !isLine(s.Remote, maxText) {
		return errors.New("the reply text is not a line of text")
	}
	return nil
}

func checkEdit(e sdk.Edit, may sdk.Right, recipients int, draft string) error {
	var need sdk.Right
	var err error
	switch e.Kind {
	case sdk.HeaderInsert, sdk.HeaderChange, sdk.HeaderRemove:
		need, err = sdk.MayEditHeader, checkField(e)
	case sdk.RecipientAdd, sdk.RecipientRemove:
		need, err = sdk.MayEditRcpt, checkAddress(e)
	case sdk.Copy:
		need, err = sdk.MayCopy, checkAddress(e)
		if err == nil && (e.Value != "" || e.BodyDraft != "") {
			need, err = need|sdk.MayReplaceBody, checkOwn(e, draft)
		}
	case sdk.ReversePath:
		need = sdk.MayEditReverse
	case sdk.BodyReplace:
		need = sdk.MayReplaceBody
		if draft == "" || e.BodyDraft != draft {
			err = errDraft
		}
	default:
		return fmt.Errorf("kind %d is unknown", e.Kind)
	}
	if may&need != need {
		return errors.New("the manifest does not declare the right to it")
	}
	if err != nil {
		return err
	}
	for _, i := range e.Recipients {
		if i < 0 || i >= recipients {
			return fmt.Errorf("there is no recipient %d", i)
		}
	}
	if len(e.Recipients) > recipients {
		return errors.New("it names a recipient twice")
	}
	return nil
}

func checkField(e sdk.Edit) error {
	if len(e.Name) > 255 || len(e.Value) > maxField {
		return errors.New("the header field is too large")
	}
	if e.Kind == sdk.HeaderChange && e.Index < 0 {
		return fmt.Errorf("there is no header field %d", e.Index)
	}
	// FormatField refuses what could begin another field or end the header.
	_, err := mail.FormatField(e.Name, e.Value)
	return err
}

var errDraft = errors.New("it names a draft that the gateway did not make for this call")

// checkOwn checks the content of a copy that is not that of the message: a header, and a body in
// the draft.
func checkOwn(e sdk.Edit, draft string) error {
	h, rest := mail.SplitMessage([]byte(e.Value))
	switch {
	case draft == "" || e.BodyDraft != draft:
		return errDraft
	case len(e.Value) > maxField:
		return errors.New("the header of the copy is too large")
	case len(rest) > 0 || !h.Separated() || strings.Contains(strings.ReplaceAll(e.Value, "\r\n", ""), "\r") ||
		strings.Count(e.Value, "\n") != strings.Count(e.Value, "\r\n") || strings.Contains(e.Value, "\x00"):
		return errors.New("the header of the copy is none: fields, each with CRLF, and an empty line")
	}
	return nil
}

func checkAddress(e sdk.Edit) error {
	if e.Path.IsZero() {
		return errors.New("it has no address")
	}
	return nil
}

func checkFacts(v *sdk.Verdict) error {
	if len(v.Scores) > maxFacts || len(v.Notes) > maxFacts {
		return errors.New("there are too many scores or notes")
	}
	for name, score := range v.Scores {
		if name == "" || !isLine(name, maxName) {
			return errors.New("the name of a score is not a short line of text")
		}
		if !finite(score) {
			return fmt.Errorf("score %q is not a number", name)
		}
	}
	for name, note := range v.Notes {
		if name == "" || !isLine(name, maxName) {
			return errors.New("the name of a note is not a short line of text")
		}
		if !isLine(note, maxNote) {
			return fmt.Errorf("note %q is not a line of text", name)
		}
	}
	return nil
}

// isLine reports whether s is at most max bytes of UTF-8 without control characters.
func isLine(s string, max int) bool {
	if len(s) > max || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return false
		}
	}
	return true
}
