package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// rules is a script of n rules, none of which fits.
func rules(n int) []byte {
	var b strings.Builder
	b.WriteString(`require ["fileinto", "variables", "relational", "comparator-i;ascii-numeric"];` + "\n")
	for i := range n {
		switch i % 5 {
		case 0:
			fmt.Fprintf(&b, "if header :contains [\"subject\", \"x-list\"] [\"rule %d\", \"another %d\"] { fileinto \"box%d\"; stop; }\n", i, i, i)
		case 1:
			fmt.Fprintf(&b, "if address :domain [\"from\", \"sender\"] \"example%d.com\" { fileinto \"box%d\"; stop; }\n", i, i)
		case 2:
			fmt.Fprintf(&b, "if allof (header :matches \"subject\" \"*[list%d]*\", not exists \"x-spam\") { fileinto \"list-${1}\"; stop; }\n", i)
		case 3:
			fmt.Fprintf(&b, "if anyof (header :is \"list-id\" \"<l%d.example.org>\", size :over %dM) { fileinto \"big\"; stop; }\n", i, i+10)
		case 4:
			fmt.Fprintf(&b, "if header :value \"ge\" :comparator \"i;ascii-numeric\" \"x-score\" \"%d\" { fileinto \"spam\"; stop; }\n", i+100)
		}
	}
	return []byte(b.String())
}

func benchMessage() *Message {
	var b strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, "Received: from h%d.example.org by h%d.example.org with ESMTP id x%d; Sun, 22 Nov 2026 10:00:%02d +0000\r\n", i, i+1, i, i)
	}
	b.WriteString("From: Alice <alice@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= from me\r\nX-Score: 3\r\n\r\n")
	return &Message{Header: mail.NewHeader([]byte(b.String())), Body: mail.InlineBody([]byte(strings.Repeat("text\r\n", 700)))}
}

// BenchmarkRun50 is a message through a compiled script of 50 rules, as it is for every delivery after the first one.
func BenchmarkRun50(b *testing.B) {
	s, err := Compile(rules(50), Options{})
	if err != nil {
		b.Fatal(err)
	}
	m, env := benchMessage(), &Env{From: "alice@example.org", To: "bob@example.net", Now: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		if r, err := s.Run(context.Background(), m, env); err != nil || r.Fault != nil || len(r.Actions) != 1 {
			b.Fatal(r, err)
		}
	}
}

// BenchmarkCompile50 is what the cache of compiled scripts saves.
func BenchmarkCompile50(b *testing.B) {
	src := rules(50)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(src, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
