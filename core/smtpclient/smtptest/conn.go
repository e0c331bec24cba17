package smtptest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"strings"
)

// conn is one connection.
type conn struct {
	sink *Sink
	nc   net.Conn
	br   *bufio.Reader
	n    int
	tls  bool
	helo string
	user string
	msg  Message
	open bool // between MAIL and its end
}

func (s *Sink) serve(c *conn) {
	if s.opts.Implicit && s.opts.TLS != nil {
		c.nc, c.tls = tls.Server(c.nc, s.opts.TLS), true
	}
	c.br = bufio.NewReader(c.nc)
	if _, ok := c.answer("BANNER", "220 sink.test ESMTP"); !ok {
		return
	}
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		s.mu.Lock()
		s.lines = append(s.lines, Line{c.n, c.tls, line})
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		if !c.command(line) {
			return
		}
	}
}

// next is the scripted reply for a verb, or the usual one.
func (s *Sink) next(verb, usual string) string {
	if r, ok := s.always[verb]; ok {
		usual = r
	}
	if list := s.script[verb]; len(list) > 0 {
		s.script[verb] = list[1:]
		if list[0] != "" {
			usual = list[0]
		}
	}
	return usual
}

// answer says the reply to a verb and returns it; after not ok the connection ends.
func (c *conn) answer(verb, usual string) (string, bool) {
	c.sink.mu.Lock()
	r := c.sink.next(verb, usual)
	c.sink.mu.Unlock()
	return r, c.say(r)
}

func (c *conn) say(reply string) bool {
	switch reply {
	case Drop:
		return false
	case Stall:
		// Until the client hangs up; what it says meanwhile goes unheard.
		io.Copy(io.Discard, c.br)
		return false
	}
	if _, err := io.WriteString(c.nc, reply+"\r\n"); err != nil {
		return false
	}
	return !strings.HasPrefix(reply, "421")
}

func (c *conn) command(line string) bool {
	verb, args, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch verb {
	case "EHLO", "HELO", "LHLO":
		return c.hello(verb, args)
	case "STARTTLS":
		return c.startTLS()
	case "AUTH":
		return c.auth(args)
	case "MAIL":
		return c.mail(line, args)
	case "RCPT":
		usual := "250 2.1.5 Ok"
		if !c.open {
			usual = "503 5.5.1 no MAIL"
		}
		r, ok := c.answer(verb, usual)
		if r[0] == '2' {
			c.msg.To = append(c.msg.To, between(args))
			c.msg.Rcpt = append(c.msg.Rcpt, line)
		}
		return ok
	case "DATA":
		return c.data()
	case "RSET":
		c.open, c.msg = false, Message{}
		_, ok := c.answer(verb, "250 2.0.0 Ok")
		return ok
	case "NOOP":
		_, ok := c.answer(verb, "250 2.0.0 Ok")
		return ok
	case "QUIT":
		c.answer(verb, "221 2.0.0 Bye")
		return false
	}
	_, ok := c.answer(verb, "500 5.5.2 what?")
	return ok
}

func (c *conn) hello(verb, args string) bool {
	if (verb == "LHLO") != c.sink.opts.LMTP {
		_, ok := c.answer(verb, "500 5.5.1 wrong protocol")
		return ok
	}
	c.helo, c.open, c.msg = args, false, Message{}
	lines := []string{"sink.test"}
	if verb != "HELO" {
		lines = append(lines, c.sink.opts.Extensions...)
		if c.sink.opts.TLS != nil && !c.tls {
			lines = append(lines, "STARTTLS")
		}
		if c.sink.opts.Users != nil {
			lines = append(lines, "AUTH PLAIN LOGIN")
		}
	}
	for i := range lines[:len(lines)-1] {
		lines[i] = "250-" + lines[i]
	}
	lines[len(lines)-1] = "250 " + lines[len(lines)-1]
	_, ok := c.answer(verb, strings.Join(lines, "\r\n"))
	return ok
}

func (c *conn) startTLS() bool {
	if c.sink.opts.TLS == nil || c.tls {
		_, ok := c.answer("STARTTLS", "502 5.5.1 no TLS")
		return ok
	}
	r, ok := c.answer("STARTTLS", "220 2.0.0 go")
	if !ok || !strings.HasPrefix(r, "220") {
		return ok
	}
	tc := tls.Server(c.nc, c.sink.opts.TLS)
	if tc.Handshake() != nil {
		return false
	}
	c.nc, c.br, c.tls, c.helo = tc, bufio.NewReader(tc), true, ""
	return true
}

func (c *conn) auth(args string) bool {
	ask := func(prompt string) string {
		io.WriteString(c.nc, "334 "+prompt+"\r\n")
		line, _ := c.br.ReadString('\n')
		b, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
		return string(b)
	}
	mech, initial, _ := strings.Cut(args, " ")
	var user, pass string
	switch strings.ToUpper(mech) {
	case "PLAIN":
		b, _ := base64.StdEncoding.DecodeString(initial)
		if f := strings.Split(string(b), "\x00"); len(f) == 3 {
			user, pass = f[1], f[2]
		}
	case "LOGIN":
		user, pass = ask("VXNlcm5hbWU6"), ask("UGFzc3dvcmQ6")
	}
	usual := "535 5.7.8 no"
	if want, ok := c.sink.opts.Users[user]; ok && want == pass {
		usual = "235 2.7.0 welcome"
		c.user = user
	}
	_, ok := c.answer("AUTH", usual)
	return ok
}

func (c *conn) mail(line, args string) bool {
	usual := "250 2.1.0 Ok"
	if c.open {
		usual = "503 5.5.1 nested MAIL"
	}
	r, ok := c.answer("MAIL", usual)
	if r[0] == '2' {
		c.open = true
		c.msg = Message{Conn: c.n, Helo: c.helo, User: c.user, TLS: c.tls, From: between(args), Mail: line}
	}
	return ok
}

// between is what stands in the angle brackets of "FROM:<...> PARAMS", quotes respected.
func between(s string) string {
	start := strings.IndexByte(s, '<') + 1
	quoted := false
	for i := start; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return s[start:i]
		}
	}
	return s[start:]
}

func (c *conn) data() bool {
	usual := "354 go ahead"
	if len(c.msg.To) == 0 {
		usual = "554 5.5.1 no valid recipients"
	}
	r, ok := c.answer("DATA", usual)
	if !ok || !strings.HasPrefix(r, "354") {
		return ok
	}
	var raw, data bytes.Buffer
	for start := true; ; {
		line, err := c.br.ReadBytes('\n')
		raw.Write(line)
		if err != nil {
			return false
		}
		if start && string(line) == ".\r\n" {
			break
		}
		if start && line[0] == '.' {
			line = line[1:]
		}
		data.Write(line)
		start = bytes.HasSuffix(raw.Bytes(), []byte("\r\n"))
	}
	msg := c.msg
	msg.Raw, msg.Data = raw.Bytes(), data.Bytes()
	c.open, c.msg = false, Message{}
	return c.dot(msg)
}

// dot answers the end of a message, once or with LMTP for each recipient. A message of
// which a recipient got a 2yz is recorded, before the reply is out.
func (c *conn) dot(msg Message) bool {
	if !c.sink.opts.LMTP {
		return c.verdict(msg)
	}
	for i := range msg.To {
		one := msg
		one.To, one.Rcpt = msg.To[i:i+1], msg.Rcpt[i:i+1]
		if !c.verdict(one) {
			return false
		}
	}
	return true
}

func (c *conn) verdict(msg Message) bool {
	s := c.sink
	s.mu.Lock()
	r := s.next("DOT", "250 2.0.0 Ok: taken")
	if r[0] == '2' {
		s.messages = append(s.messages, msg)
		close(s.changed)
		s.changed = make(chan struct{})
	}
	s.mu.Unlock()
	return c.say(r)
}
