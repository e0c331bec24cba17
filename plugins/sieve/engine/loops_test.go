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
