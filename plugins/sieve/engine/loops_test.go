package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// TestLoopOverAnotherBody: a script that gives the message another body inside of a loop has no parts of the old one
// left to go on with.
func TestLoopOverAnotherBody(t *testing.T) {
	var body strings.Builder
	for range 20 {
		body.WriteString("--b\r\nContent-Type: text/plain\r\n\r\nsome text that is longer than what comes in its place\r\n")
	}
	body.WriteString("--b--\r\n")
	for script, want := range map[string]string{
		`foreverypart { replace "x"; }`:                                                           "x",
		`foreverypart { replace "x"; replace "y"; }`:                                              "y",
		`foreverypart { replace "x"; extracttext "a"; foreverypart { extracttext "a"; } }`:        "x",
		`foreverypart { foreverypart { enclose "x"; break; } extracttext "a"; replace "${a}z"; }`: "z",
		`foreverypart { foreverypart { replace "w"; enclose "x"; } extracttext "a"; stop; }`:      "",
		`foreverypart { enclose "x"; foreverypart { extracttext "a"; replace "y"; } }`:            "y",
	} {
		s, err := Compile([]byte(`require ["foreverypart","replace","enclose","extracttext","variables"]; `+script), Options{})
		if err != nil {
			t.Fatal(err)
		}
		m := &Message{Header: mail.NewHeader([]byte("Subject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n")), Body: mail.InlineBody([]byte(body.String()))}
		r, err := s.Run(context.Background(), m, &Env{Now: time.Unix(1e9, 0), To: "b@example.net"})
		if err != nil || r.Fault != nil || r.Edited == nil {
			t.Errorf("%s: %v, %v", script, r, err)
			continue
		}
		if got := string(r.Edited.Body.Inline); want != "" && got != want {
			t.Errorf("%s: %q", script, got)
		}
	}
}

// TestL12TraceStays: what loops are found by stays, whatever a script makes of the message; a notification of an
// automatic message would be one that never ends.
func TestL12TraceStays(t *testing.T) {
	const header = "X-Sieve-Redirected-From: a@example.org\r\nAuto-Submitted: auto-generated\r\nReceived: by x\r\nSubject: s\r\n\r\n"
	for _, script := range []string{
		`deleteheader "X-Sieve-Redirected-From"; deleteheader "auto-submitted"; deleteheader "received"; deleteheader "subject";`,
		`enclose "x";`, `enclose :headers ["Auto-Submitted: no", "X-Sieve-Redirected-From: b@example.org"] "x";`, `replace "x";`,
	} {
		s, err := Compile([]byte(`require ["editheader","enclose","replace","enotify"]; `+script+` notify "mailto:b@example.org"; keep;`), Options{})
		if err != nil {
			t.Fatal(err)
		}
		m := &Message{Header: mail.NewHeader([]byte(header)), Body: mail.InlineBody([]byte("text\r\n"))}
		r, err := s.Run(context.Background(), m, &Env{Now: time.Unix(1e9, 0), To: "b@example.net"})
		if err != nil || r.Fault != nil || render(r) != "keep" {
			t.Errorf("%s: %v, %v", script, r, err)
			continue
		}
		for name, want := range map[string]string{"X-Sieve-Redirected-From": "a@example.org", "Auto-Submitted": "auto-generated", "Received": "by x"} {
			if got := r.Edited.Header.Get(name); strings.TrimSpace(got) != want {
				t.Errorf("%s: %s is %q", script, name, got)
			}
		}
	}
}

// TestEncloseNoBody: a message without a body can be enclosed as any other.
func TestEncloseNoBody(t *testing.T) {
	s, err := Compile([]byte(`require "enclose"; enclose :subject "outer" "a note";`), Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &Message{Header: mail.NewHeader([]byte("Subject: inner\r\n\r\n"))}
	r, err := s.Run(context.Background(), m, &Env{Now: time.Unix(1e9, 0), To: "b@example.net"})
	if err != nil || r.Fault != nil || r.Edited == nil {
		t.Fatalf("%v, %v", r, err)
	}
	if body := string(r.Edited.Body.Inline); !strings.Contains(body, "a note") || !strings.Contains(body, "message/rfc822\r\n\r\nSubject: inner\r\n\r\n") {
		t.Errorf("%q", body)
	}
}
