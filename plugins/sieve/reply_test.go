package sieve

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func fieldNames(h mail.Header) string {
	var names []string
	for _, f := range h.Fields {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}

// V-09, V-10: what a message or a script says cannot become another field, or another recipient.
func TestV10Replies(t *testing.T) {
	const usual = "Auto-Submitted Message-ID Date From To Subject In-Reply-To References X-Auto-Response-Suppress MIME-Version Content-Type"
	for _, tt := range []struct{ name, script, fields, want string }{
		{"subject", `require ["vacation", "variables"]; if header :matches "Subject" "*" { vacation :subject "Re: ${1}" "away"; }`, usual, "Subject: Re: a Bcc: x@example.com"},
		{"text", `require "vacation"; vacation "To: x@example.com

away
.
.";`, usual, "\r\n\r\nTo: x@example.com\r\n\r\naway\r\n.\r\n.\r\n"},
		{"mime", `require "vacation"; vacation :mime "Content-Type: text/html
Bcc: x@example.com
To: x@example.com
Content-Language: de

<p>away</p>";`, usual + " Content-Language", "Content-Type: text/html\r\nContent-Language: de\r\n\r\n<p>away</p>\r\n"},
		{"from", `require "vacation"; vacation :from "\"a, b <x@example.com>\" <alice@example.org>" "away";`, usual, "From: \"a, b <x@example.com>\" <alice@example.org>\r\n"},
		{"long", `require "vacation"; vacation :subject "` + strings.Repeat("word ", 60) + `" "away";`, usual, "word\r\n word"},
		{"notify", `require "enotify"; notify "mailto:a@example.com?bcc=x@example.com&received=x&auto-submitted=no&from=x@example.com&subject=s&body=b%0D%0A.%0D%0Ac";`,
			"Auto-Submitted Message-ID Date From To Subject In-Reply-To References MIME-Version Content-Type", "Subject: s\r\n"},
	} {
		p, _ := configured(t, "", tt.script)
		m := message("From: bob@example.net\nTo: alice@example.org\nSubject: =?utf-8?q?a=0D=0ABcc:_x@example.com?=\nMessage-ID: <1@example.net>\nReferences: <0@example.net> nonsense\n\t<a b>\n\nbody\n")
		plan, err := sdktest.Planner(t, p, Manifest(), m)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		i := slices.IndexFunc(plan.Actions, func(a sdk.PlanAction) bool { return a.Kind == sdk.PlanVacation || a.Kind == sdk.PlanNotify })
		if i < 0 {
			t.Errorf("%s: %s", tt.name, said(t, plan))
			continue
		}
		a := plan.Actions[i]
		text := string(a.Header.Block()) + string(a.Body)
		if got := fieldNames(a.Header); got != tt.fields {
			t.Errorf("%s: fields %s", tt.name, got)
		}
		if !strings.Contains(text, tt.want) || !strings.Contains(text, "References: <0@example.net> <1@example.net>\r\n") || !strings.Contains(text, "Auto-Submitted: auto-") {
			t.Errorf("%s:\n%s", tt.name, text)
		}
		for line := range strings.SplitSeq(string(a.Header.Block()), "\r\n") {
			if len(line) > 200 {
				t.Errorf("%s: a line of %d", tt.name, len(line))
			}
		}
	}
}

// V-10: nobody sends as somebody else by way of his script: the gateway signs what it sends. What is not the owner's
// is ignored.
func TestV10From(t *testing.T) {
	for said, want := range map[string]string{
		"":                                   `"Alice A." <alice@example.org>`,
		"alice@example.org":                  "alice@example.org",
		"A <ALICE@Example.org>":              `"A" <ALICE@example.org>`,
		"alice+sales@example.org":            "alice+sales@example.org",
		"sales@example.org":                  "sales@example.org",
		"ceo@example.org":                    `"Alice A." <alice@example.org>`,
		"Alice <ceo@example.org>":            `"Alice A." <alice@example.org>`,
		"alice@example.com":                  `"Alice A." <alice@example.org>`,
		`\"ceo@example.org, x\"@example.org`: `"Alice A." <alice@example.org>`,
		`\"alice\"@example.org`:              "alice@example.org",
		`\"ceo@example.org\\\" <x\" <alice@example.org>`: `"ceo@example.org\" <x" <alice@example.org>`,
	} {
		for _, action := range []string{`vacation :from "%s" "away"`, `notify :from "%s" "mailto:x@example.com"`} {
			if said == "" {
				action = strings.Replace(action, `:from "%s" `, "", 1)
			}
			p, h := configured(t, "", `require ["vacation","enotify"]; `+strings.Replace(action, "%s", said, 1)+";")
			h.Accounts = map[mail.Path]sdk.Account{
				alice:                              {Local: true, Targets: []mail.Path{alice}, Info: &sdk.AccountInfo{Address: alice, Enabled: true, DisplayName: "Alice A."}},
				mail.MustPath("sales@example.org"): {Local: true, Targets: []mail.Path{mail.MustPath("bob@example.org"), alice}},
				mail.MustPath("ceo@example.org"):   {Local: true, Targets: []mail.Path{mail.MustPath("ceo@example.org")}},
			}
			plan, err := sdktest.Planner(t, p, Manifest(), message(hello))
			if err != nil || len(plan.Actions) != 2 {
				t.Errorf("%s: %v, %v", said, plan, err)
				continue
			}
			if got := plan.Actions[0].Header.Get("From"); got != want {
				t.Errorf("%s: From: %s", said, got)
			}
		}
	}
}

// A reply that is too long is a fault of its script.
func TestLongReply(t *testing.T) {
	p, _ := configured(t, "[quota]\nscript_size = 200000\n", `require "vacation"; vacation "`+strings.Repeat("x", maxBody+1)+`";`)
	plan, err := sdktest.Planner(t, p, Manifest(), message(hello))
	if err != nil || said(t, plan) != "notify alice@example.org; keep" || !strings.Contains(string(plan.Actions[0].Body), "too long") {
		t.Errorf("%s, %v", said(t, plan), err)
	}
}
