// Package attachments is the plugin that refuses, removes or holds attachments by their
// names and by what they are. See README.md.
//
// Contents are hostile: whatever is unpacked is unpacked in memory, within limits on
// depth, files, bytes, ratio and time, and nothing is ever written to a disk or run. It
// keeps nothing between messages.
package attachments

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Rules, tried in order for each file; the first that fits decides about the file.
	// Default: programs and scripts are rejected, and messages in pieces.
	Rules []Rule `toml:"rule"`
	// MaxDepth is how many archives in archives are opened. Default: 5.
	MaxDepth int `toml:"max_depth"`
	// MaxFiles is how many files of one message are looked at. Default: 10000.
	MaxFiles int `toml:"max_files"`
	// MaxUnpacked is how much may come out of the archives of one message, in MiB.
	// Default: 256.
	MaxUnpacked int `toml:"max_unpacked"`
	// MaxRatio is how many times larger than packed a file may be. Default: 250.
	MaxRatio int `toml:"max_ratio"`
	// MaxTime is how long one message is looked at. Default: "10s".
	MaxTime time.Duration `toml:"max_time"`
	// Limits is what happens to a message that exceeds a limit: "unscanned" (on_failure
	// decides), "reject", "quarantine" or "accept". Default: "unscanned".
	Limits string `toml:"limits"`
	// Ambiguous is the same for a message that mail programs read in different ways.
	// Default: "quarantine".
	Ambiguous string `toml:"ambiguous"`
	// Note begins the text that is put in the place of what was removed.
	// Default: "An attachment was removed from this message."
	Note string `toml:"note"`
}

// Rule says what happens to files with certain names or of certain types.
type Rule struct {
	// Name is how replies, traces and notes call the rule. Default: "rule 1" and so on.
	Name string `toml:"name"`
	// Names are patterns with * and ?, or extensions; capitals do not matter.
	Names []string `toml:"names"`
	// Types are what the content is, as in the README, or media types with a slash, which
	// are compared with what the message declares; patterns too.
	Types []string `toml:"types"`
	// Action is "reject", "quarantine", "strip" or "accept". Required.
	Action string `toml:"action"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{MaxDepth: 5, MaxFiles: 10_000, MaxUnpacked: 256, MaxRatio: 250, MaxTime: 10 * time.Second,
		Limits: "unscanned", Ambiguous: "quarantine", Note: "An attachment was removed from this message."}
}

// DefaultRules are the rules where there are none.
func DefaultRules() []Rule {
	return []Rule{
		{Name: "programs", Types: []string{"executable", "script", "shortcut"}, Action: "reject",
			Names: strings.Fields("bat chm cmd com cpl exe hta jar js jse lnk msc msi msix msp ps1 psm1 reg scr sct settingcontent-ms vb vbe vbs wsc wsf wsh xll")},
		// Only the reader who puts the pieces together sees what is in them (RFC 2046 §5.2.2).
		{Name: "pieces", Types: []string{"message/partial"}, Action: "reject"},
	}
}

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "attachments",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayReject | sdk.MayQuarantine | sdk.MayEditHeader | sdk.MayReplaceBody,
		Origins: []mail.Origin{mail.Incoming, mail.Submitted, mail.Fetched},
		Owns:    []string{removedField},
	}
}

// messages is how many messages with archives are looked at at a time: each may take
// maxMemory.
const messages = 4

// Plugin judges attachments. It implements [sdk.Filter].
type Plugin struct {
	set   Settings
	rules []rule
	slots chan struct{}
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{slots: make(chan struct{}, messages)} }

// Configure checks the settings.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	p.set = Defaults()
	if err := c.Decode(&p.set); err != nil {
		return err
	}
	var faults []error
	for _, n := range []struct {
		key string
		v   int
	}{{"max_depth", p.set.MaxDepth}, {"max_files", p.set.MaxFiles}, {"max_unpacked", p.set.MaxUnpacked}, {"max_ratio", p.set.MaxRatio}, {"max_time", int(p.set.MaxTime / time.Millisecond)}} {
		if n.v <= 0 {
			faults = append(faults, fmt.Errorf("settings: %s has to be more than 0", n.key))
		}
	}
	for _, s := range []struct{ key, v string }{{"limits", p.set.Limits}, {"ambiguous", p.set.Ambiguous}} {
		switch s.v {
		case "unscanned", "reject", "quarantine", "accept":
		default:
			faults = append(faults, fmt.Errorf(`settings: %s: %q is none of "unscanned", "reject", "quarantine" and "accept"`, s.key, s.v))
		}
	}
	list := p.set.Rules
	if list == nil {
		list = DefaultRules()
	}
	for i, r := range list {
		compiled, err := compile(r, i)
		if err != nil {
			faults = append(faults, fmt.Errorf("settings: rule %d: %w", i+1, err))
		}
		p.rules = append(p.rules, compiled)
	}
	return errors.Join(faults...)
}

// removedField tells that something was removed.
const removedField = "X-Attachments-Removed"

// Filter looks at every part of the message.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	tree, err := mime.Walk(m.Header, m.Body, mime.Limits{})
	if err != nil {
		return nil, err
	}
	look := newLook(ctx, p)
	defer look.end()
	if err := look.message(tree, nil, 0); err != nil {
		return nil, err
	}
	return p.decide(ctx, m, tree, look)
}

// decide makes the verdict: what refuses comes before what holds, and that before "could
// not look" and removing.
func (p *Plugin) decide(ctx context.Context, m *mail.Message, tree *mime.Tree, look *look) (*sdk.Verdict, error) {
	worst, ambiguous := look.worst(), look.defects&mime.Ambiguous
	// policy is why the message gets an outcome that the settings have for what could not be
	// looked at; "" where they do not.
	policy := func(want string) string {
		switch {
		case look.limit != "" && p.set.Limits == want:
			return look.limit
		case ambiguous != 0 && p.set.Ambiguous == want:
			return "the message is ambiguous: " + ambiguous.String()
		}
		return ""
	}
	var v *sdk.Verdict
	switch {
	case worst != nil && worst.rule.action == reject:
		v = sdk.Reject(mail.Permanent(550, 7, 1, "Attachment not allowed: "+worst.String()))
	case policy("reject") != "":
		v = sdk.Reject(mail.Permanent(550, 7, 1, "Attachments cannot be checked: "+policy("reject")))
	case worst != nil && worst.rule.action == quarantine:
		v = sdk.Quarantine(printable("attachment "+worst.String(), 400))
	case policy("quarantine") != "":
		v = sdk.Quarantine(policy("quarantine"))
	case policy("unscanned") != "":
		v = sdk.Unscanned(policy("unscanned"))
	case worst != nil:
		v = sdk.Continue()
		if err := p.strip(ctx, m, tree, look, v); err != nil {
			return nil, err
		}
	default:
		v = sdk.Continue()
	}
	look.note(v)
	return v, nil
}
