package milter

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/emersion/go-milter"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// change makes edits of what the milter wants changed, in its order. Where the message does
// not go on there is nothing to edit.
func (d *dialogue) change(changes []milter.ModifyAction) error {
	if d.v.Action != sdk.ActionContinue {
		return nil
	}
	var t tally
	for _, c := range changes {
		if err := d.edit(c, &t); err != nil {
			return fmt.Errorf("%w: %w", errAnswer, err)
		}
	}
	if d.conn.Replaced {
		if err := d.body.finish(); err != nil {
			return err
		}
		d.v.ReplaceBody(d.body.to)
		t.other = append(t.other, "body")
	}
	if s := t.String(); s != "" {
		d.v.Note("changes", s)
	}
	if d.conn.Parameters > 0 {
		d.v.Note("left_out", fmt.Sprintf("the parameters of %d added recipients", d.conn.Parameters))
	}
	return nil
}

// tally counts changes, for the trace.
type tally struct {
	header, recipients int
	other              []string
}

func (t *tally) String() string {
	var parts []string
	if t.header > 0 {
		parts = append(parts, fmt.Sprintf("%d of the header", t.header))
	}
	if t.recipients > 0 {
		parts = append(parts, fmt.Sprintf("%d of the recipients", t.recipients))
	}
	return strings.Join(append(parts, t.other...), ", ")
}

func (d *dialogue) edit(c milter.ModifyAction, t *tally) error {
	switch c.Code {
	case milter.ActAddHeader, milter.ActInsertHeader, milter.ActChangeHeader:
		t.header++
		return d.editHeader(c)
	case milter.ActAddRcpt:
		p, err := parsePathOf(c.Rcpt)
		if err == nil && p.IsZero() {
			err = fmt.Errorf("the null path is no recipient")
		}
		if err != nil {
			return err
		}
		t.recipients++
		d.v.AddRecipient(p)
	case milter.ActDelRcpt:
		p, err := parsePathOf(c.Rcpt)
		if err != nil {
			return nil // then it is none of ours
		}
		if path, ok := d.recipient(p); ok {
			t.recipients++
			d.v.RemoveRecipient(path)
		}
	case milter.ActChangeFrom:
		p, err := parsePathOf(c.From)
		if err != nil {
			return err
		}
		t.other = append(t.other, "reverse-path")
		d.v.SetReversePath(p)
	case milter.ActQuarantine:
		d.v.Outcome = sdk.Outcome{Action: sdk.ActionQuarantine, Reason: clean(c.Reason)}
		d.v.Note("answer", "quarantine at "+d.at)
	default:
		return fmt.Errorf("change %q is unknown", c.Code)
	}
	return nil
}

// editHeader changes the header. Positions of new fields count all fields, as Postfix does;
// the numbers of fields to change count those of that name that the milter was shown.
func (d *dialogue) editHeader(c milter.ModifyAction) error {
	if len(c.HeaderName) > 255 {
		return fmt.Errorf("the name of a header field has %d bytes", len(c.HeaderName))
	}
	value := fromMilter(c.HeaderName, c.HeaderValue, d.session.ProtocolOption(milter.OptHeaderLeadingSpace))
	if _, err := mail.FormatField(c.HeaderName, value); err != nil {
		return err
	}
	if len(value) > 64<<10 {
		return fmt.Errorf("the value of header field %s has %d bytes", c.HeaderName, len(value))
	}
	if c.HeaderIndex > math.MaxInt32-1 {
		return fmt.Errorf("there is no header field %d", c.HeaderIndex)
	}
	switch index := int(c.HeaderIndex); {
	case c.Code == milter.ActAddHeader:
		d.v.InsertHeader(-1, c.HeaderName, value)
	case c.Code == milter.ActInsertHeader:
		d.v.InsertHeader(index, c.HeaderName, value)
	default:
		index = max(index, 1) - 1 + d.hidden[strings.ToLower(c.HeaderName)]
		if c.HeaderValue == "" {
			d.v.RemoveHeader(index, c.HeaderName)
		} else {
			d.v.ChangeHeader(index, c.HeaderName, value)
		}
	}
	return nil
}

// recipient finds a recipient that is in the transaction, or was added.
func (d *dialogue) recipient(p mail.Path) (mail.Path, bool) {
	for _, i := range d.here {
		if path := d.m.Envelope.Recipients[i].Path; path.Fold() == p.Fold() {
			return path, true
		}
	}
	for _, e := range d.v.Edits {
		if e.Kind == sdk.RecipientAdd && e.Path.Fold() == p.Fold() {
			return e.Path, true
		}
	}
	return mail.Path{}, false
}

// parsePathOf reads an address with or without its angle brackets.
func parsePathOf(s string) (mail.Path, error) {
	s = strings.TrimSpace(s)
	if rest, ok := strings.CutPrefix(s, "<"); ok {
		s = strings.TrimSuffix(rest, ">")
	}
	p, err := mail.ParsePath(s)
	if err != nil {
		return p, fmt.Errorf("address %.300q: %w", s, err)
	}
	return p, nil
}

// clean makes a reason of what the milter said.
func clean(s string) string {
	s = mail.Permanent(554, 7, 1, s).Text // printable, and short
	if s == "" {
		return "quarantined by the milter"
	}
	return s
}

// replacement is a new body on its way to the gateway. Line ends become CRLF.
type replacement struct {
	ctx context.Context
	to  *sdk.Body
	cr  bool // a CR waits for what follows
	out []byte
}

func (r *replacement) add(piece []byte) error {
	if r.to == nil {
		var err error
		if r.to, err = sdk.NewBody(r.ctx); err != nil {
			return err
		}
	}
	r.out = r.out[:0]
	for _, b := range piece {
		switch {
		case b == 0:
			return fmt.Errorf("%w: the new body has a NUL", errAnswer)
		case b == '\n':
			r.out = append(r.out, '\r', '\n')
			r.cr = false
			continue
		case r.cr: // it stood alone
			r.out = append(r.out, '\r', '\n')
		}
		if r.cr = b == '\r'; !r.cr {
			r.out = append(r.out, b)
		}
	}
	_, err := r.to.Write(r.out)
	return err
}

// finish ends the body.
func (r *replacement) finish() error {
	if !r.cr {
		return nil
	}
	r.cr = false
	_, err := r.to.Write([]byte("\r\n"))
	return err
}
