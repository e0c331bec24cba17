package wire

import (
	"errors"
	"fmt"
	"math"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Description is what a plugin says of itself.
type Description struct {
	Manifest  sdk.Manifest
	Filter    bool // it serves the filter interface
	Gate      bool // it serves the gate interface
	Mailbox   bool // it serves the mailbox interface
	Planner   bool // it serves the planner interface
	Observer  bool // it serves the observer interface
	Directory bool // it serves the directory interface
	Service   bool // it serves the service interface
	Stream    bool // filter and gate are asked over Plugin.Stream
	Room      bool // it serves Mailbox.Room
	Folders   bool // it serves Mailbox.Folders
}

const allRights = sdk.MayReject | sdk.MayDiscard | sdk.MayQuarantine | sdk.MayEditHeader |
	sdk.MayEditRcpt | sdk.MayCopy | sdk.MayEditReverse | sdk.MayReplaceBody

const allHostRights = sdk.MaySubmit | sdk.MayAuthenticate | sdk.MayLookup | sdk.MayKeepData | sdk.MayUseCertificate |
	sdk.MayKeepState | sdk.MayLog | sdk.MayCount | sdk.MayAskRemembered | sdk.MayTakeReinjected | sdk.MayAskFolders

const allStages = uint32(sdk.AtConnect | sdk.AtHelo | sdk.AtMail | sdk.AtRcpt)

// Describe reads a plugin's manifest.
func Describe(m *proto.Manifest) (Description, error) {
	d := Description{Manifest: sdk.Manifest{
		Name:    m.GetName(),
		Version: m.GetVersion(),
		May:     sdk.Right(m.GetMay()),
		Signs:   m.GetSigns(),
		Network: m.GetNetwork(),
	}}
	if !isName(d.Manifest.Name) {
		return d, fmt.Errorf("manifest: name %q is not made of 1 to 64 lower case letters, digits and hyphens", clip(d.Manifest.Name))
	}
	if !isLine(d.Manifest.Version, 64) {
		return d, errors.New("manifest: version is not a short line of text")
	}
	if n := m.GetNeeds(); n < 0 || n > proto.Need_NEED_BODY {
		return d, fmt.Errorf("manifest: need %d is unknown; the plugin wants a newer gateway", n)
	}
	d.Manifest.Needs = sdk.Need(m.GetNeeds())
	if unknown := d.Manifest.May &^ allRights; unknown != 0 {
		return d, fmt.Errorf("manifest: right %#x is unknown; the plugin wants a newer gateway", uint32(unknown))
	}
	for _, o := range m.GetOrigins() {
		if o <= 0 || o > proto.Origin_ORIGIN_FETCHED {
			return d, fmt.Errorf("manifest: origin %d is unknown; the plugin wants a newer gateway", o)
		}
		d.Manifest.Origins = append(d.Manifest.Origins, mail.Origin(o))
	}
	for _, name := range m.GetInterfaces() {
		switch name {
		case proto.InterfaceFilter:
			d.Filter = true
		case proto.InterfaceGate:
			d.Gate = true
		case proto.InterfaceMailbox:
			d.Mailbox = true
		case proto.InterfacePlanner:
			d.Planner = true
		case proto.InterfaceObserver:
			d.Observer = true
		case proto.InterfaceDirectory:
			d.Directory = true
		case proto.InterfaceService:
			d.Service = true
		}
	}
	if unknown := sdk.HostRight(m.GetHost()) &^ allHostRights; unknown != 0 {
		return d, fmt.Errorf("manifest: right %#x to services of the gateway is unknown; the plugin wants a newer gateway", uint32(unknown))
	}
	d.Manifest.Host = sdk.HostRight(m.GetHost())
	if !d.Filter && !d.Gate && !d.Mailbox && !d.Planner && !d.Observer && !d.Directory && !d.Service {
		return d, errors.New("manifest: the plugin serves no interface that this gateway knows")
	}
	if m.GetStages()&^allStages != 0 {
		return d, fmt.Errorf("manifest: stage %#x is unknown; the plugin wants a newer gateway", m.GetStages()&^allStages)
	}
	d.Manifest.Stages = sdk.Stage(m.GetStages())
	d.Stream = m.GetStream() && (d.Filter || d.Gate)
	d.Room = m.GetRoom() && d.Mailbox
	d.Folders = m.GetFolders() && d.Mailbox
	if d.Gate != (d.Manifest.Stages != 0) {
		return d, errors.New("manifest: a gate names the stages at which it is asked, and nothing else does")
	}
	d.Manifest.Owns = m.GetOwns()
	if err := checkOwns(d.Manifest, d.Filter); err != nil {
		return d, fmt.Errorf("manifest: %w", err)
	}
	return d, nil
}

func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// Verdict reads a filter's answer about a message with that envelope and checks it against
// the plugin's manifest. An error says what the plugin did wrong.
func Verdict(pv *proto.Verdict, m sdk.Manifest, env *mail.Envelope) (*sdk.Verdict, error) {
	return VerdictDraft(pv, m, env, "")
}

// VerdictDraft is Verdict where the request named a draft for a new body.
func VerdictDraft(pv *proto.Verdict, m sdk.Manifest, env *mail.Envelope, draft string) (*sdk.Verdict, error) {
	v := &sdk.Verdict{Scores: pv.GetScores(), Notes: pv.GetNotes()}
	var err error
	if v.Outcome, err = outcome(pv.GetOutcome()); err != nil {
		return nil, err
	}
	if n := len(pv.GetPerRecipient()); n > 0 {
		v.PerRecipient = make(map[int]sdk.Outcome, n)
	}
	for i, po := range pv.GetPerRecipient() {
		if v.PerRecipient[int(i)], err = outcome(po); err != nil {
			return nil, fmt.Errorf("recipient %d: %w", i, err)
		}
	}
	if n := len(pv.GetEdits()); n > maxEdits {
		return nil, fmt.Errorf("%d edits are too many", n)
	}
	for i, pe := range pv.GetEdits() {
		e, err := edit(pe)
		if err != nil {
			return nil, fmt.Errorf("edit %d: %w", i, err)
		}
		v.Edits = append(v.Edits, e)
	}
	if err := CheckDraft(v, m, env, draft); err != nil {
		return nil, err
	}
	return v, nil
}

// GateVerdict reads a gate's answer and checks it against the plugin's manifest. An error
// says what the plugin did wrong.
func GateVerdict(pv *proto.Verdict, m sdk.Manifest) (*sdk.Verdict, error) {
	v, err := Verdict(pv, m, &mail.Envelope{})
	if err != nil {
		return nil, err
	}
	if err := CheckGate(v, m); err != nil {
		return nil, err
	}
	return v, nil
}

func outcome(po *proto.Outcome) (sdk.Outcome, error) {
	a := po.GetAction()
	if a < 0 || a > proto.Action_ACTION_UNSCANNED {
		return sdk.Outcome{}, fmt.Errorf("action %d is unknown", a)
	}
	st, err := status(po.GetStatus())
	return sdk.Outcome{Action: sdk.Action(a), Status: st, Reason: po.GetReason()}, err
}

func status(ps *proto.Status) (mail.Status, error) {
	if ps == nil {
		return mail.Status{}, nil
	}
	s := mail.Status{Code: int(ps.Code), Text: ps.Text, Remote: ps.Remote}
	switch len(ps.Enhanced) {
	case 0:
		s.Enhanced[0] = s.Code / 100
	case 3:
		for i, n := range ps.Enhanced {
			s.Enhanced[i] = int(n)
		}
	default:
		return s, fmt.Errorf("enhanced status code has %d parts", len(ps.Enhanced))
	}
	return s, nil
}

func edit(pe *proto.Edit) (sdk.Edit, error) {
	k := pe.GetKind()
	if k <= 0 || k > proto.EditKind_EDIT_BODY_REPLACE {
		return sdk.Edit{}, fmt.Errorf("kind %d is unknown", k)
	}
	e := sdk.Edit{Kind: sdk.EditKind(k), Name: pe.Name, Value: string(pe.Value), Index: int(pe.Index), BodyDraft: pe.BodyDraft}
	var err error
	if e.Path, err = address(pe.Path); err != nil {
		return e, err
	}
	if e.ReversePath, err = address(pe.ReversePath); err != nil {
		return e, err
	}
	if r := pe.Recipients; r != nil {
		e.Recipients = make([]int, len(r.Index))
		for i, n := range r.Index {
			e.Recipients[i] = int(n)
		}
	}
	return e, nil
}

func address(p *proto.Path) (mail.Path, error) {
	if p.GetLocal() == "" && p.GetDomain() == "" {
		return mail.Path{}, nil
	}
	a, err := mail.MakePath(p.GetLocal(), p.GetDomain())
	if err != nil {
		return mail.Path{}, fmt.Errorf("address %q: %w", clip(p.GetLocal()+"@"+p.GetDomain()), err)
	}
	return a, nil
}

// Delivered reads a mailbox's answer: nil, a [mail.Status] (not a success) as the error, or
// another error for an answer that breaks the contract. The boolean says which of the two
// errors it is: true for the plugin's word.
func Delivered(r *proto.DeliverResponse) (error, bool) {
	return refusal(r.GetStatus())
}

// Roomy reads a mailbox's answer about a message to come, as [Delivered] does.
func Roomy(r *proto.RoomResponse) (error, bool) { return refusal(r.GetStatus()) }

func refusal(ps *proto.Status) (error, bool) {
	if ps == nil {
		return nil, true
	}
	s, err := status(ps)
	if err == nil {
		err = checkStatus(s, 4, 5)
	}
	if err != nil {
		return err, false
	}
	return s, true
}

func clip(s string) string {
	const n = 80
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
