// Command puppet is a plugin that does what mail tells it to, for tests.
//
// As a gate it looks at one word: the setting "connect", the first label of the HELO name,
// the local part of the reverse-path or that of the recipient, up to a "+". The words are
// reject, tempfail, unscanned, error, panic, exit and hang; all others pass. Every answer
// has a note called after the stage, with the word, how many notes were there before, and the
// client's name.
//
// As a filter it carries out the X-Do fields of the message, in order, and takes them out;
// see do.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

type puppet struct {
	data string
	cfg  struct {
		// Connect is the word at connect. Default: "".
		Connect string `toml:"connect"`
		// Tell adds X-Notes fields: all that was noted before. Default: false.
		Tell bool `toml:"tell"`
		// Fail makes every call of the filter an error. Default: false.
		Fail bool `toml:"fail"`
		// Count makes a file of data_dir longer by one byte for every message. Default: "".
		Count string `toml:"count"`
		// Owns are header fields that nobody else may write. Default: [].
		Owns []string `toml:"owns"`
		// Do are commands for every message, before its own. Default: [].
		Do []string `toml:"do"`
	}
}

func (p *puppet) Configure(_ context.Context, c sdk.Config) error {
	p.data = c.DataDir
	return c.Decode(&p.cfg)
}

func (p *puppet) Owns() []string { return p.cfg.Owns }

// count notes how often it was asked, in a file.
func (p *puppet) count(v *sdk.Verdict) error {
	if p.cfg.Count == "" {
		return nil
	}
	path := filepath.Join(p.data, p.cfg.Count)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("x")
	if info, serr := os.Stat(path); serr == nil {
		v.Note("count", fmt.Sprint(info.Size()))
	}
	return errors.Join(err, f.Close())
}

func (p *puppet) Gate(ctx context.Context, a *sdk.Attempt) (*sdk.Verdict, error) {
	var word string
	switch e := &a.Envelope; a.Stage {
	case sdk.AtConnect:
		word = p.cfg.Connect
	case sdk.AtHelo:
		word, _, _ = strings.Cut(e.Client.Helo, ".")
	case sdk.AtMail:
		word = fmt.Sprintf("%s+%d", e.ReversePath.Local, a.Size)
	case sdk.AtRcpt:
		word = fmt.Sprintf("%s+%d", a.Recipient.Local, a.Accepted)
	}
	action, _, _ := strings.Cut(word, "+")
	v := sdk.Continue()
	switch action {
	case "reject":
		v = sdk.Reject(mail.Permanent(550, 7, 1, "Refused at "+a.Stage.String()))
	case "tempfail":
		v = sdk.Tempfail(mail.Temporary(450, 7, 1, "Not now at "+a.Stage.String()))
	case "unscanned":
		v = sdk.Unscanned("no answer from DNS")
	case "error":
		return nil, errors.New("as told")
	case "panic":
		panic("as told")
	case "exit":
		os.Exit(3)
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	note := fmt.Sprintf("%s after %d notes, %s", word, len(a.Envelope.Notes), a.Envelope.Origin)
	if name := a.Envelope.Client.Host; name != "" {
		note += " by " + name
	}
	return v.Note(a.Stage.String(), note), nil
}

func (p *puppet) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	if p.cfg.Fail {
		return nil, errors.New("as told")
	}
	v := sdk.Continue()
	if err := p.count(v); err != nil {
		return nil, err
	}
	if p.cfg.Tell {
		for _, name := range slices.Sorted(maps.Keys(m.Notes)) {
			v.AddHeader("X-Notes", name+": "+m.Notes[name])
		}
	}
	var commands []string
	for _, f := range m.Header.Fields {
		if strings.EqualFold(f.Name, "X-Do") {
			commands = append(commands, f.Value())
		}
	}
	for _, c := range slices.Concat(p.cfg.Do, commands) {
		if err := do(ctx, v, m, c); err != nil {
			return nil, err
		}
	}
	if len(commands) > 0 {
		v.Edits = append(v.Edits, sdk.Edit{Kind: sdk.HeaderRemove, Name: "X-Do", Index: -1})
	}
	return v, nil
}

func main() {
	sdk.Serve(&puppet{}, sdk.Manifest{
		Name: "puppet", Version: "1.0", Needs: sdk.NeedBody,
		Stages: sdk.AtConnect | sdk.AtHelo | sdk.AtMail | sdk.AtRcpt,
		May: sdk.MayReject | sdk.MayDiscard | sdk.MayQuarantine | sdk.MayEditHeader | sdk.MayEditRcpt |
			sdk.MayCopy | sdk.MayEditReverse | sdk.MayReplaceBody,
	})
}
