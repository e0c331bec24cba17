package sieve

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/sdktest"
)

const mailboxRequire = `require ["fileinto", "mailbox", "special-use", "copy", "mboxmetadata", "servermetadata", "vacation", "fcc"];` + "\n"

// What a script is told of a mailbox that tells its folders, and of one that does not.
func TestMailboxes(t *testing.T) {
	list := &sdk.FolderList{Folders: []sdk.Folder{{Name: "Work"}, {Name: "Lists/Go"}, {Name: "Sent"}, {Name: "Spam", Uses: []string{`\Junk`}}}, Separators: "."}
	for _, tt := range []struct{ name, script, told, untold string }{
		{"there", `if mailboxexists ["Work", "INBOX", "Lists.Go"] { fileinto "A"; }`, "keep A", "keep"},
		{"one of them not", `if mailboxexists ["Work", "None"] { fileinto "A"; }`, "keep", "keep"},
		{"of the settings", `if mailboxexists "Trash" { fileinto "A"; }`, "keep", "keep A"},
		{"use", `if specialuse_exists ["\\Junk", "\\Sent"] { fileinto :specialuse "\\junk" "Other"; }`, "keep Spam", "keep Junk"},
		{"use of a mailbox", `if specialuse_exists "Spam" "\\Junk" { fileinto "A"; }`, "keep A", "keep"},
		{"use of no folder", `if specialuse_exists "\\Archive" { discard; }`, "keep", "discard discarded by the script main"},
		{"into a use of no folder", `fileinto :specialuse "\\Archive" "Other";`, "keep Other", "keep Archive"},
		{"a copy", `vacation :fcc "Other" :specialuse "\\Sent" "away"; discard;`, "vacation; discard discarded by the script main; keep Sent header body(6)",
			"vacation; discard discarded by the script main; keep Sent header body(6)"},
		{"annotations", `if anyof (metadataexists "Work" "/private/comment", servermetadataexists "/shared/comment", metadata :is "INBOX" "/private/comment" "") { discard; }`, "keep", "keep"},
	} {
		for _, told := range []bool{true, false} {
			p, h := configured(t, "", mailboxRequire+tt.script)
			want := tt.untold
			if told {
				h.Mailboxes[alice], want = list, tt.told
			}
			plan, err := sdktest.Planner(t, p, Manifest(), message(hello))
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			} else if got := said(t, plan); got != want {
				t.Errorf("%s, told %v: %s\nwant %s", tt.name, told, got, want)
			}
		}
	}
}

// The mailbox is asked when a script wants to know, and then once for all scripts; without an answer
// there is no plan, and nobody is told of a fault.
func TestMailboxesAskedOnce(t *testing.T) {
	for script, want := range map[string]int{
		`if header "Subject" "other" { if mailboxexists "Work" { discard; } }`:                    0,
		`fileinto "Work"; fileinto :create "Other";`:                                              0,
		`if mailboxexists "INBOX" { keep; }`:                                                      0,
		`if mailboxexists ["Work", "Lists"] { keep; } if specialuse_exists "\\Junk" { discard; }`: 1,
		`fileinto :specialuse "\\Junk" "Spam";`:                                                   1,
		`vacation :fcc "A" :specialuse "\\Sent" "away";`:                                          1,
	} {
		p, h := configured(t, "", mailboxRequire+script)
		h.Mailboxes[alice] = &sdk.FolderList{Folders: []sdk.Folder{{Name: "Work"}}}
		if _, err := sdktest.Planner(t, p, Manifest(), message(hello)); err != nil || h.Asked != want {
			t.Errorf("%s: asked %d times, %v", script, h.Asked, err)
		}
		h.Down, h.Asked = true, 0
		plan, err := sdktest.Planner(t, p, Manifest(), message(hello))
		if (err != nil) != (want > 0) || err != nil && plan != nil {
			t.Errorf("%s, and no answer: %v, %v", script, plan, err)
		}
		if h.Counters["script_faults"] != 0 {
			t.Errorf("%s: counted as a fault of the script", script)
		}
	}
}

// A mailbox that says nothing leaves time to say so: it is not the plugin that is too slow.
func TestMailboxesSilent(t *testing.T) {
	p, h := configured(t, "", mailboxRequire+`if mailboxexists "Work" { discard; }`)
	h.Silent = true
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if plan, err := p.Plan(ctx, message(hello)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", plan, err)
	}
}
