package main_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// An antivirus that is away under load, where mail is to wait for it: all is accepted, nothing is
// delivered unscanned, and when it is back what is clean arrives, once, and what is not never
// does. With POSTERN_FULL=1 it is away for two minutes, and the backlog goes on by itself, which
// may take it another.
func TestAntivirusParked(t *testing.T) {
	t.Parallel()
	full, waiting := os.Getenv("POSTERN_FULL") == "1", int64(100)
	e := peertest.StartClamd(t)
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, filtered(sink, "antivirus", "timeout = \"5s\"\non_failure = \"park\"\norigins = [\"submitted\"]", fmt.Sprintf("addresses = [\"unix:%s\"]\nheader = true", e.Socket)))
	v := fire(t, g, sink, ammunition{pace: 100 * time.Millisecond, mercy: true, withheld: true,
		compose: func(n int, harmful bool) (string, string) {
			_, text := harming(peertest.EICAR())(n, harmful)
			return "", text // nobody is told what became of it
		},
		seen: func(h mail.Header, _ *shot) bool { return h.Count("X-Virus-Status") == 1 },
	})
	v.more("accepted", &v.accepted, 20)
	v.more("refused", &v.refused, 5)
	v.mu.Lock()
	for _, s := range v.shots {
		if s.harmful && s.accepted {
			t.Errorf("%s was accepted by a gateway with an antivirus", s.id)
		}
	}
	v.mu.Unlock()
	e.Stop()
	if full {
		<-time.After(2 * time.Minute)
		waiting = 300
	}
	v.more("accepted", &v.accepted, waiting)
	e.Restart()
	v.cease()
	n := len(g.queue())
	if n < int(waiting) {
		t.Errorf("%d messages wait, and %d should", n, waiting)
	}
	for end := time.Now().Add(4 * time.Minute); full && len(g.queue()) > 0 && time.Now().Before(end); {
		<-time.After(time.Second)
	}
	eventually(t, "nothing waits", func() bool {
		if !full {
			g.hurry()
		}
		return len(g.queue()) == 0
	})
	t.Logf("%d waited", n)
	v.end()
}
