package milter

import (
	"regexp"
	"strings"

	"github.com/emersion/go-milter"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// judge takes the answer to a command that is about the whole message. Final: the milter has
// nothing more to say.
func (d *dialogue) judge(act *milter.Action, err error) (final bool, _ error) {
	if err != nil {
		return false, err
	}
	o, final := d.outcome(act)
	if final {
		d.conclude(o)
	}
	return final, nil
}

// conclude makes o the outcome for all recipients that have none of their own.
func (d *dialogue) conclude(o sdk.Outcome) {
	d.v.Outcome = o
	word := o.Action.String()
	if o.Action == sdk.ActionContinue {
		word = "accept"
	}
	d.v.Note("answer", word+" at "+d.at)
}

// outcome is what an answer means. Only "continue" is not final.
func (d *dialogue) outcome(act *milter.Action) (o sdk.Outcome, final bool) {
	switch act.Code {
	case milter.ActContinue:
		return o, false
	case milter.ActAccept:
		return o, true
	case milter.ActDiscard:
		return sdk.Outcome{Action: sdk.ActionDiscard, Reason: "discarded by the milter"}, true
	case milter.ActReject:
		return sdk.Outcome{Action: sdk.ActionReject, Status: mail.Permanent(550, 7, 1, "Message rejected")}, true
	case milter.ActReplyCode:
		return refusal(act.SMTPCode, act.SMTPText), true
	case milter.ActTempFail:
	}
	text := "Service unavailable, try again later"
	if d.conn != nil && d.conn.Gone {
		text = "Service closing, try again later"
	}
	return sdk.Outcome{Action: sdk.ActionTempfail, Status: mail.Temporary(451, 7, 1, text)}, true
}

// replyCode is what further lines of a reply begin with, too.
var replyCode = regexp.MustCompile(`^[0-9]{3}[ -]`)

// refusal makes an outcome of a reply: its code, and its text, which may have several lines
// with codes of their own and has '%' doubled.
func refusal(code int, text string) sdk.Outcome {
	class := code / 100
	subject, detail := 7, 1
	var lines []string
	for i, line := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		if i > 0 && replyCode.MatchString(line) {
			line = line[4:]
		}
		said, rest, ok := mail.CutEnhanced(line)
		if ok && i == 0 && said[0] == class {
			subject, detail = said[1], said[2]
		}
		line = rest
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	said := percent(strings.Join(lines, " "))
	if class == 5 {
		if said == "" {
			said = "Message rejected"
		}
		return sdk.Outcome{Action: sdk.ActionReject, Status: mail.Permanent(code, subject, detail, said)}
	}
	if said == "" {
		said = "Service unavailable, try again later"
	}
	if code == 421 { // would promise that the connection is closed (RFC 5321 §3.8)
		code = 451
	}
	return sdk.Outcome{Action: sdk.ActionTempfail, Status: mail.Temporary(code, subject, detail, said)}
}

// percent undoes the doubling: Sendmail uses the text as a format.
func percent(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if i++; i == len(s) || s[i] != '%' {
				i--
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
