package wire

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

func ownerOf(owns ...string) *proto.Manifest {
	return &proto.Manifest{Name: "a", Interfaces: []string{"filter"}, May: uint32(sdk.MayEditHeader), Owns: owns}
}

// A plugin owns fields of its own, and nothing that others have a use for.
func TestOwns(t *testing.T) {
	for own, want := range map[string]string{
		"X-Spam-Flag":            "",
		"X-Spam*":                "",
		"x-s*":                   "",
		"Received-SPF":           "",
		"X-Content-Checked":      "",
		"X":                      "",
		strings.Repeat("x", 255): "",

		"":                          "no name",
		"*":                         "no name",
		"X-Spam-*-Flag":             "no name",
		"X-Spam**":                  "no name",
		"X-Spam:":                   "no name",
		"X Spam":                    "no name",
		"X-Sp\u00e4m":               "no name",
		"X-Spam\r\nBcc":             "no name",
		strings.Repeat("x", 256):    "no name",
		"X-*":                       "at least 3",
		"ab*":                       "at least 3",
		"X-P*":                      "x-postern-*",
		"x-postern-unscanned":       "x-postern-*",
		"X-Postern-*":               "x-postern-*",
		"Received":                  "received",
		"rec*":                      "received",
		"SUBJECT":                   "subject",
		"From":                      "from",
		"DKIM-Signature":            "dkim-signature",
		"DKIM*":                     "dkim-signature",
		"Authentication-Results":    "authentication-results",
		"ARC-Seal":                  "arc-*",
		"arc*":                      "arc-*",
		"List-Unsubscribe":          "list-*",
		"Content-Type":              "content-*",
		"Cont*":                     "content-*",
		"Content-*":                 "content-*",
		"MIME-Version":              "mime-version",
		"Return-Path":               "return-path",
		"Resent-From":               "resent-*",
		"Auto-Submitted":            "auto-submitted",
		"Disposition-Notification*": "disposition-notification-*",
	} {
		for how, check := range map[string]func() error{
			"manifest": func() error { _, err := Describe(ownerOf("X-Fine", own)); return err },
			"settings": func() error {
				d, err := Describe(ownerOf("X-Fine"))
				if err != nil {
					t.Fatal(err)
				}
				err = d.Configured(&proto.ConfigureResponse{Owns: []string{own}})
				if n := len(d.Manifest.Owns); n != 1 && err != nil || n != 2 && err == nil {
					t.Errorf("%q: %d fields, %v", own, n, err)
				}
				return err
			},
		} {
			err := check()
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s, %q: %v, want %q", how, own, err, want)
			}
			if err != nil && !isLine(err.Error(), 1000) {
				t.Errorf("%s, %q: the error is no line: %q", how, own, err)
			}
		}
	}
	many := make([]string, maxOwns)
	for i := range many {
		many[i] = fmt.Sprintf("X-Field-%d", i)
	}
	if _, err := Describe(ownerOf(many...)); err != nil {
		t.Error(err)
	}
	if _, err := Describe(ownerOf(append(many, "X-More")...)); err == nil {
		t.Error("too many fields passed")
	}
	for name, m := range map[string]*proto.Manifest{
		"no filter": {Name: "a", Interfaces: []string{"mailbox"}, May: uint32(sdk.MayEditHeader), Owns: []string{"X-A"}},
		"no right":  {Name: "a", Interfaces: []string{"filter"}, May: uint32(allRights &^ sdk.MayEditHeader), Owns: []string{"X-A"}},
	} {
		if _, err := Describe(m); err == nil || !strings.Contains(err.Error(), "only a filter with the right") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever a plugin says that it owns: a field without which a message is not what it was is never
// among it.
func FuzzOwns(f *testing.F) {
	for _, own := range []string{"X-Spam*", "Received*", "*", "Fro*", "x-postern-*", "\x00"} {
		f.Add(own)
	}
	f.Fuzz(func(t *testing.T, own string) {
		d, err := Describe(ownerOf(own))
		if err != nil {
			return
		}
		for _, name := range strings.Fields(strings.ReplaceAll(common, "-*", "-id")) {
			if d.Manifest.OwnsField(name) {
				t.Errorf("%q owns %s", own, name)
			}
		}
		if name, _ := strings.CutSuffix(own, "*"); !d.Manifest.OwnsField(strings.ToUpper(name)) {
			t.Errorf("%q does not own itself", own)
		}
		if _, err := mail.FormatField(strings.TrimSuffix(own, "*"), "x"); err != nil {
			t.Error(err)
		}
	})
}
