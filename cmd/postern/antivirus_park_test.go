package main_test

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
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
	g := start(t, filtered(sink, "antivirus", "timeout = \"5s\"\non_failure = \"park\"\norigins = [\"submitted\"]", fmt.Sprintf("addresses = [\"unix:%s\"]", e.Socket)))
	harm := peertest.EICAR()
	var promised sync.Map
	var clean, infected, refused atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for s := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Millisecond): // the load, not a wait
				}
				id := fmt.Sprintf("<%d.%d@load>", s, n)
				text, bad := "From: alice@example.net\r\nMessage-ID: "+id+"\r\n\r\n", n%3 == 0
				if bad {
					text += harm
				}
				switch code, reply := g.offer(text+"\r\n", "bob@example.org"); {
				case code == 250 && !bad:
					promised.Store(id, true)
					clean.Add(1)
				case code == 250:
					infected.Add(1)
				case code == 554 && bad:
					refused.Add(1)
				default:
					t.Errorf("%s: %d %s", id, code, reply)
					return
				}
			}
		})
	}
	eventually(t, "mail is scanned", func() bool { return clean.Load() >= 10 && refused.Load() >= 5 })
	if n := infected.Load(); n > 0 {
		t.Errorf("%d infected messages were accepted by a gateway with an antivirus", n)
	}
	e.Stop()
	away := clean.Load()
	if full {
		<-time.After(2 * time.Minute)
		waiting = 300
	}
	eventually(t, "mail waits", func() bool { return clean.Load() >= away+waiting })
	e.Restart()
	close(stop)
	wg.Wait()
	parked := func() (n int) {
		for _, q := range g.queue() {
			if q.Recipient == "bob@example.org" { // and not the reports to alice
				n++
			}
		}
		return n
	}
	n := parked()
	if n < int(waiting) {
		t.Errorf("%d messages wait, and %d should", n, waiting)
	}
	for end := time.Now().Add(4 * time.Minute); full && parked() > 0 && time.Now().Before(end); {
		<-time.After(time.Second)
	}
	eventually(t, "nothing waits", func() bool {
		if !full {
			g.hurry()
		}
		return parked() == 0
	})
	got := sink.Wait(t, int(clean.Load()), patience)
	for _, m := range got {
		h := mail.NewHeader(m.Data)
		if _, ok := promised.LoadAndDelete(h.Get("Message-ID")); !ok {
			t.Errorf("%s arrived twice, or was refused", h.Get("Message-ID"))
		}
		if bytes.Contains(m.Data, []byte(harm)) || h.Has("X-Postern-Unscanned") {
			t.Errorf("%s has not been scanned", h.Get("Message-ID"))
		}
	}
	if len(got) != int(clean.Load()) {
		t.Errorf("%d clean messages were accepted, %d arrived", clean.Load(), len(got))
	}
	t.Logf("%d waited; %d clean arrived, %d infected were refused at once, %d when they had been scanned", n, len(got), refused.Load(), infected.Load())
}
