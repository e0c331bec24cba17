package smtpd

import (
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

// model is what RFC 5321 and RFC 3030 say of the state of a session.
type model struct {
	greeted, mail, chunking bool
	rcpts, refused          int
	body                    string // of the message under way, by BDAT
	queued                  []string
}

func (m *model) reset() {
	m.mail, m.chunking, m.rcpts, m.refused, m.body = false, false, 0, 0, ""
}

// noData is the reply to DATA and BDAT when there is nobody to send to; "" if there is.
func (m *model) noData() string {
	switch {
	case !m.greeted || !m.mail || m.rcpts == 0 && m.refused == 0:
		return "503"
	case m.rcpts == 0:
		return "554"
	}
	return ""
}

// end is the reply at the end of a message: Intake refuses what says so.
func (m *model) end(body string) string {
	m.reset()
	if strings.Contains(body, "spam") {
		return "550"
	}
	m.queued = append(m.queued, body)
	return "250"
}

// step is a command of the client with its reply.
func (m *model) step(r *rand.Rand) (command, want string) {
	order := func(ok bool) string {
		if ok {
			return "250"
		}
		return "503"
	}
	bodies := []string{"x\r\n", "spam\r\n", "MAIL FROM:<evil@x.test>\r\nRSET\r\n", ""}
	body := bodies[r.IntN(len(bodies))]
	switch r.IntN(12) {
	case 0:
		m.greeted = true
		m.reset()
		return "EHLO x\r\n", "250"
	case 1, 2:
		want = order(m.greeted && !m.mail)
		m.mail = m.mail || want == "250"
		return "MAIL FROM:<a@x.test>\r\n", want
	case 3, 4:
		want = order(m.mail && !m.chunking)
		if want == "250" {
			m.rcpts++
		}
		return "RCPT TO:<b@mx.test>\r\n", want
	case 5:
		if want = order(m.mail && !m.chunking); want == "250" {
			m.refused++
			want = "550"
		}
		return "RCPT TO:<no@mx.test>\r\n", want
	case 6, 7:
		if want = m.noData(); want == "" && !m.chunking {
			return "DATA\r\n|" + body + ".\r\n", "354|" + m.end(body)
		}
		return "DATA\r\n", map[bool]string{true: "503", false: want}[m.chunking]
	case 8:
		want = m.noData()
		if want == "" {
			m.chunking, m.body, want = true, m.body+body, "250"
		}
		return "BDAT " + itoa(len(body)) + "\r\n" + body, want
	case 9:
		want = m.noData()
		if want == "" {
			want = m.end(m.body + body)
		}
		return "BDAT " + itoa(len(body)) + " LAST\r\n" + body, want
	case 10:
		m.reset()
		return "RSET\r\n", "250"
	}
	return []string{"NOOP\r\n", "FOO\r\n", "VRFY x\r\n"}[r.IntN(3)], "2|500|252"
}

// TestP20Model runs random sequences of commands against the model.
func TestP20Model(t *testing.T) {
	rg := &rig{}
	rg.receive = func(_ ctx, e *mail.Envelope, rd io.Reader) (Receipt, error) {
		data, err := io.ReadAll(rd)
		switch {
		case err != nil:
			return Receipt{}, err
		case strings.Contains(string(data), "spam"):
			return Receipt{}, mail.Permanent(550, 7, 1, "Spam")
		}
		return rg.record(e, strings.NewReader(string(data)))
	}
	startRig(t, rg, func(o *Options) { o.Limits.Errors, o.Limits.Junk = 1<<30, 1<<30 })
	var want []string
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := rg.dial()
		c.expect("220")
		var m model
		var history []string
		for range 40 {
			command, replies := m.step(r)
			history = append(history, command)
			if strings.HasPrefix(replies, "2|") {
				c.send(command)
				if got := c.reply(); got[:1] != "2" && got[:3] != "500" {
					t.Fatalf("seed %d: %q: %q", seed, command, got)
				}
				continue
			}
			parts := strings.Split(replies, "|")
			for i, send := range strings.SplitN(command, "|", 2) {
				c.send(send)
				if got := c.reply(); !strings.HasPrefix(got, parts[i]) {
					t.Fatalf("seed %d: %q: got %q, want %s\n%q", seed, send, got, parts[i], history)
				}
			}
		}
		c.do("QUIT\r\n", "221")
		c.closed()
		want = append(want, m.queued...)
	}
	got := rg.queued()
	if len(got) != len(want) || len(got) < 100 {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	for i, m := range got {
		if m.data != want[i] {
			t.Errorf("message %d: %q, want %q", i, m.data, want[i])
		}
	}
}
