// Command planner plans what the Subject of a message says, in words between commas: keep FOLDER
// [FLAG...], redirect ADDRESS, discard, reject, vacation KEY, notify ADDRESS; at "exit" it dies. Mail with
// another Subject is redirected where the settings say for its recipient, or kept.
package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

func main() {
	sdk.Serve(&planner{}, sdk.Manifest{Name: "planner", Version: "1.0", May: sdk.MayReject | sdk.MayDiscard | sdk.MayEditRcpt,
		Host: sdk.MaySubmit | sdk.MayAskRemembered})
}

type planner struct {
	host *sdk.Host
	cfg  struct {
		FailIf   string            `toml:"fail_if"` // a file
		Redirect map[string]string `toml:"redirect"`
	}
}

func (p *planner) Configure(_ context.Context, c sdk.Config) error {
	p.host = c.Host
	return c.Decode(&p.cfg)
}

func (p *planner) Plan(ctx context.Context, m *mail.Message) (*sdk.Plan, error) {
	if _, err := os.Stat(p.cfg.FailIf); err == nil {
		return nil, errors.New("not now")
	}
	plan := &sdk.Plan{}
	me := m.Envelope.Recipients[0].Path
	if to, ok := p.cfg.Redirect[me.String()]; ok {
		return plan.Redirect(mail.MustPath(to)), nil
	}
	header := mail.NewHeader([]byte("From: " + me.String() + "\r\nSubject: I am away\r\n\r\n"))
	for part := range strings.SplitSeq(m.Header.Get("Subject"), ",") {
		word := strings.Fields(part)
		switch {
		case len(word) == 0:
		case word[0] == "keep":
			plan.File(strings.TrimPrefix(word[1], "INBOX"), word[2:]...)
		case word[0] == "redirect":
			plan.Redirect(mail.MustPath(word[1]))
		case word[0] == "discard":
			plan.Discard("not wanted")
		case word[0] == "reject":
			plan.Reject(mail.Permanent(550, 7, 1, "I do not read this"))
		case word[0] == "notify":
			plan.Notify(mail.MustPath(word[1]), header, []byte("You have mail\r\n"))
		case word[0] == "exit":
			os.Exit(3)
		case word[0] == "undeclared":
			plan.Vacation(mail.NewHeader([]byte("Subject: a\nBcc: b\r\n\r\n")), nil)
		case word[0] == "vacation":
			if known, err := p.host.Remembered(ctx, me, word[1]); err != nil {
				return nil, err
			} else if !known {
				plan.Vacation(header, []byte("I am away\r\n")).AndRemember(word[1], time.Hour)
			}
		}
	}
	return plan, nil
}
