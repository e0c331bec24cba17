package smtpfilter

import (
	"bytes"
	"context"
	"io"
	"slices"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// part is a message that came back, with the recipients it came back for.
type part struct {
	*mail.Message
	owners []int       // numbers of the message's recipients
	added  []mail.Path // who was not one of them
}

// verdict makes one of the filter's last words and what it brought back.
func (p *Plugin) verdict(ctx context.Context, m *mail.Message, statuses []mail.Status, back []*mail.Message) (*sdk.Verdict, error) {
	parts := assign(m.Envelope.Recipients, statuses, back)
	outcomes := p.outcomes(statuses, parts)
	v := sdk.Continue()
	for _, pt := range parts {
		edits, err := pt.edits(m, p.owned, len(statuses))
		if err != nil {
			return nil, err
		}
		v.Edits = append(v.Edits, edits...)
	}
	if err := bodies(ctx, v, m, parts, outcomes); err != nil {
		return nil, err
	}
	if len(v.Edits) > maxEdits {
		return nil, errTooDifferent
	}
	if same := slices.IndexFunc(outcomes, func(o sdk.Outcome) bool { return o != outcomes[0] }) < 0; same {
		v.Outcome = outcomes[0]
	} else {
		for i, o := range outcomes {
			if o != v.Outcome {
				v.For(i, o)
			}
		}
	}
	v.Note("reply", statuses[0].Error())
	return v, nil
}

// assign finds out which recipients came back. One that the filter has refused has not,
// whatever it brought.
func assign(recipients []mail.Recipient, statuses []mail.Status, back []*mail.Message) []part {
	exact, folded := make(map[mail.Path]int), make(map[mail.Path]int)
	for i, r := range recipients {
		exact[r.Path] = i
		folded[r.Path.Fold()] = i
	}
	taken := make([]bool, len(recipients))
	var parts []part
	for _, b := range back {
		pt := part{Message: b}
		for _, r := range b.Envelope.Recipients {
			i, known := exact[r.Path]
			if !known || taken[i] {
				i, known = folded[r.Path.Fold()]
			}
			switch {
			case !known:
				pt.added = append(pt.added, r.Path)
			case !taken[i] && statuses[i].Success():
				taken[i] = true
				pt.owners = append(pt.owners, i)
			}
		}
		if len(pt.owners) > 0 {
			parts = append(parts, pt)
		}
	}
	return parts
}

// outcomes are what becomes of each recipient.
func (p *Plugin) outcomes(statuses []mail.Status, parts []part) []sdk.Outcome {
	out := make([]sdk.Outcome, len(statuses))
	for i, st := range statuses {
		switch {
		case st.Permanent():
			out[i] = sdk.Outcome{Action: sdk.ActionReject, Status: st}
		case st.Temporary():
			out[i] = sdk.Outcome{Action: sdk.ActionTempfail, Status: st}
		case !slices.ContainsFunc(parts, func(pt part) bool { return slices.Contains(pt.owners, i) }):
			out[i] = p.swallowed(st)
		}
	}
	return out
}

// swallowed is what becomes of mail that the filter took with that reply, and kept.
func (p *Plugin) swallowed(st mail.Status) sdk.Outcome {
	reason := "the content filter did not bring it back: " + st.Text
	switch p.settings.Swallowed {
	case "discard":
		return sdk.Outcome{Action: sdk.ActionDiscard, Reason: reason}
	case "tempfail":
		return sdk.Outcome{Action: sdk.ActionTempfail, Status: mail.Temporary(451, 7, 1, "Message was not passed by the content filter, try again later")}
	}
	return sdk.Outcome{Action: sdk.ActionQuarantine, Reason: reason}
}

// edits make the envelope and the header of m those of the part, for its recipients.
func (pt *part) edits(m *mail.Message, hidden func(mail.Field) bool, recipients int) ([]sdk.Edit, error) {
	edits, err := differences(m.Header, pt.Header, hidden)
	if err != nil {
		return nil, err
	}
	if pt.Envelope.ReversePath.Fold() != m.Envelope.ReversePath.Fold() {
		edits = append(edits, sdk.Edit{Kind: sdk.ReversePath, Path: pt.Envelope.ReversePath})
	}
	for _, a := range pt.added {
		edits = append(edits, sdk.Edit{Kind: sdk.RecipientAdd, Path: a})
	}
	if len(pt.owners) < recipients {
		for i := range edits {
			edits[i].Recipients = pt.owners
		}
	}
	return edits, nil
}

// bodies takes over the body that came back, where it is another. A call can make one new
// body: recipients for whom there is yet another one are asked about again, without the
// others.
func bodies(ctx context.Context, v *sdk.Verdict, m *mail.Message, parts []part, outcomes []sdk.Outcome) error {
	var first *mail.Message // the one that the new body is from
	var owners []int
	for _, pt := range parts {
		if same, err := sameBody(m.Body, pt.Body); err != nil {
			return err
		} else if same {
			continue
		}
		if first == nil {
			first = pt.Message
			if err := replace(ctx, v, pt.Body); err != nil {
				return err
			}
		}
		same, err := sameBody(first.Body, pt.Body)
		if err != nil {
			return err
		}
		if same {
			owners = append(owners, pt.owners...)
			continue
		}
		for _, i := range pt.owners {
			outcomes[i] = sdk.Outcome{Action: sdk.ActionTempfail, Status: mail.Temporary(451, 3, 0, "Message is filtered apart for this recipient, try again later")}
		}
	}
	if first != nil && len(owners) < len(outcomes) {
		v.Only(owners...)
	}
	return nil
}

// replace copies a body into the draft for a new one.
func replace(ctx context.Context, v *sdk.Verdict, body mail.Body) error {
	draft, err := sdk.NewBody(ctx)
	if err != nil {
		return err
	}
	r, err := body.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(draft, r); err != nil {
		return err
	}
	v.ReplaceBody(draft)
	return nil
}

// sameBody compares two bodies. A last line without its end gets one on the way: that is no
// difference.
func sameBody(was, is mail.Body) (bool, error) {
	if is.Size != was.Size && is.Size != was.Size+2 {
		return false, nil
	}
	a, err := was.Open()
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := is.Open()
	if err != nil {
		return false, err
	}
	defer b.Close()
	one, other := make([]byte, 32<<10), make([]byte, 32<<10)
	for left := was.Size; left > 0; {
		n := int(min(left, int64(len(one))))
		if _, err := io.ReadFull(a, one[:n]); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(b, other[:n]); err != nil {
			return false, err
		}
		if !bytes.Equal(one[:n], other[:n]) {
			return false, nil
		}
		if left -= int64(n); left == 0 && bytes.HasSuffix(one[:n], []byte("\n")) && is.Size != was.Size {
			return false, nil
		}
	}
	rest, err := io.ReadAll(io.LimitReader(b, 3))
	return is.Size == was.Size || string(rest) == "\r\n" && was.Size > 0, err
}
