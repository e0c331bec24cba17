package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Limits of one plan.
const (
	maxActions   = 100
	maxRedirects = 32
	maxMessages  = 8
	maxFlags     = 100
	maxFolder    = 1024 // bytes
	maxMark      = 256
	longestMark  = 400 * 24 * time.Hour
	maxPlanNotes = 16
)

// PlanRequest is the call for one recipient.
func PlanRequest(m *mail.Message, needs sdk.Need) (*proto.PlanRequest, error) {
	msg, err := message(m, needs == sdk.NeedBody)
	if err != nil {
		return nil, err
	}
	return &proto.PlanRequest{Message: msg}, nil
}

// Plan reads a planner's answer and checks it against the contract and the manifest. There was
// no draft.
func Plan(r *proto.PlanResponse, m sdk.Manifest) (*sdk.Plan, error) { return PlanDraft(r, m, "") }

// PlanDraft is [Plan] where the planner had a draft of that name.
func PlanDraft(r *proto.PlanResponse, m sdk.Manifest, draft string) (*sdk.Plan, error) {
	p := &sdk.Plan{}
	if len(r.GetActions()) > maxActions || len(r.GetRemember()) > maxActions {
		return nil, errors.New("there are too many actions or marks")
	}
	for i, pa := range r.GetActions() {
		a, err := planAction(pa)
		if err != nil {
			return nil, fmt.Errorf("action %d: %w", i, err)
		}
		p.Actions = append(p.Actions, a)
	}
	for _, pm := range r.GetRemember() {
		p.Remember = append(p.Remember, sdk.Mark{Key: pm.GetKey(), Lifetime: time.Duration(max(-1, min(pm.GetLifetime(), int64(longestMark/time.Second)))) * time.Second})
	}
	p.Notes = r.GetNotes()
	for i, a := range p.Actions {
		if !a.NewBody.IsZero() && (draft == "" || a.NewBody.Draft != draft) {
			return nil, fmt.Errorf("action %d: its new body is not in the draft", i)
		}
	}
	return p, CheckPlan(p, m)
}

func planAction(pa *proto.PlanAction) (sdk.PlanAction, error) {
	k := pa.GetKind()
	if k <= 0 || k > proto.PlanKind_PLAN_NOTIFY {
		return sdk.PlanAction{}, fmt.Errorf("kind %d is unknown", k)
	}
	a := sdk.PlanAction{Kind: sdk.PlanKind(k), Folder: pa.Folder, Flags: pa.Flags, Create: pa.Create, Own: pa.Own, Reason: pa.Reason, Body: pa.Body}
	if len(pa.Header) > 0 {
		a.Header = mail.NewHeader(pa.Header)
	}
	if s := pa.NewBody; s != nil {
		a.NewBody = sdk.Section{Draft: s.Draft, Offset: s.Offset, Size: s.Size}
	}
	var err error
	if a.Path, err = address(pa.Path); err != nil {
		return a, err
	}
	a.Status, err = status(pa.Status)
	return a, err
}

// CheckPlan holds a plan against the contract and the manifest.
func CheckPlan(p *sdk.Plan, m sdk.Manifest) error {
	count, own := make(map[sdk.PlanKind]int), 0
	for i, a := range p.Actions {
		if err := checkAction(a, m); err != nil {
			return fmt.Errorf("action %d: %w", i, err)
		}
		count[a.Kind]++
		if a.Own {
			own++
		}
	}
	switch {
	case len(p.Actions) > maxActions || len(p.Remember) > maxActions:
		return errors.New("there are too many actions or marks")
	case count[sdk.PlanRedirect] > maxRedirects:
		return fmt.Errorf("there are more than %d redirects", maxRedirects)
	case count[sdk.PlanVacation]+count[sdk.PlanNotify] > maxMessages:
		return fmt.Errorf("there are more than %d replies and notifications", maxMessages)
	case count[sdk.PlanReject] > 0 && len(p.Actions) > 1+count[sdk.PlanNotify]+own:
		return errors.New("a reject stands alone")
	case len(p.Notes) > maxPlanNotes:
		return fmt.Errorf("there are more than %d notes", maxPlanNotes)
	}
	for _, n := range p.Notes {
		if !isLine(n, maxText) {
			return errors.New("a note is not a line of text")
		}
	}
	for _, mark := range p.Remember {
		if mark.Key == "" || len(mark.Key) > maxMark {
			return fmt.Errorf("what is to be remembered has 1 to %d bytes", maxMark)
		}
		if mark.Lifetime <= 0 {
			return fmt.Errorf("%q is to be remembered for no time", mark.Key)
		}
	}
	return nil
}

func checkAction(a sdk.PlanAction, m sdk.Manifest) error {
	var may sdk.Right
	var host sdk.HostRight
	var err error
	switch a.Kind {
	case sdk.PlanKeep:
		err = checkKeep(a)
	case sdk.PlanRedirect:
		may = sdk.MayEditRcpt
		if a.Path.IsZero() {
			err = errors.New("it has no address")
		}
	case sdk.PlanDiscard:
		may = sdk.MayDiscard
		if !isLine(a.Reason, maxText) {
			err = errors.New("the reason is not a line of text")
		}
	case sdk.PlanReject:
		may, err = sdk.MayReject, checkStatus(a.Status, 5, 5)
	case sdk.PlanVacation:
		host, err = sdk.MaySubmit, checkMessage(a)
	case sdk.PlanNotify:
		host, err = sdk.MaySubmit, checkMessage(a)
		if a.Path.IsZero() {
			err = errors.New("it has no address")
		}
	default:
		return fmt.Errorf("kind %d is unknown", a.Kind)
	}
	if err == nil && a.Own && (a.Kind != sdk.PlanKeep || len(a.Header.Block()) == 0 || a.NewBody.IsZero()) {
		err = errors.New("a message of its own is kept, and has a header and a body")
	}
	if err == nil && (a.Kind == sdk.PlanKeep || a.Kind == sdk.PlanRedirect) {
		may, err = checkVersion(a, may)
	} else if err == nil && !a.NewBody.IsZero() {
		err = errors.New("only what is kept or redirected has a new body")
	}
	if m.May&may != may || m.Host&host != host {
		return errors.New("the manifest does not declare the right to it")
	}
	return err
}

// checkVersion looks at what a message is kept or redirected as, and adds the rights to that.
func checkVersion(a sdk.PlanAction, may sdk.Right) (sdk.Right, error) {
	if block := a.Header.Block(); len(block) > 0 {
		may |= sdk.MayEditHeader
		if len(block) > proto.MaxHeader {
			return may, fmt.Errorf("a header block has at most %d bytes", proto.MaxHeader)
		}
		if h, rest := mail.SplitMessage(block); !wireForm(block) || len(rest) > 0 || len(h.Block()) != len(block) {
			return may, errors.New("the new header is no header block")
		}
	}
	if s := a.NewBody; !s.IsZero() {
		may |= sdk.MayReplaceBody
		if s.Offset < 0 || s.Size < 0 {
			return may, errors.New("the new body is no section of the draft")
		}
	}
	return may, nil
}

func checkKeep(a sdk.PlanAction) error {
	if !isLine(a.Folder, maxFolder) {
		return errors.New("the folder is not a line of text")
	}
	if len(a.Flags) > maxFlags {
		return fmt.Errorf("there are more than %d flags", maxFlags)
	}
	for _, f := range a.Flags {
		if f == "" || !isLine(f, maxName) || strings.ContainsAny(f, " ()") {
			return errors.New("a flag is not a word")
		}
	}
	return nil
}

// checkMessage looks at a message that a plan sends.
func checkMessage(a sdk.PlanAction) error {
	if len(a.Body) > proto.MaxInline || len(a.Header.Block()) > proto.MaxInline {
		return fmt.Errorf("a message of a plan has at most %d bytes of header, and of body", proto.MaxInline)
	}
	if !wireForm(a.Body) || !wireForm(a.Header.Block()) {
		return errors.New("a message of a plan has a bare CR, a bare LF or a NUL")
	}
	n := 0
	for _, f := range a.Header.Fields {
		if _, err := mail.FormatField(f.Name, f.Value()); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return errors.New("a message of a plan has no header")
	}
	return nil
}

// wireForm reports whether CRLF is the only line end in b, and there is no NUL.
func wireForm(b []byte) bool {
	n := bytes.Count(b, []byte("\r\n"))
	return bytes.Count(b, []byte("\r")) == n && bytes.Count(b, []byte("\n")) == n && bytes.IndexByte(b, 0) < 0
}
