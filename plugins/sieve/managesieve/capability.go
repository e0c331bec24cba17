package managesieve

import (
	"strconv"
	"strings"
)

// greet says what there is (RFC 5804 §1.7).
func (s *session) greet() {
	s.capabilities()
	writeReply(s.out, ok("Ready"))
}

// capabilities lists them. They change with STARTTLS, AUTHENTICATE and UNAUTHENTICATE, and at
// no other time.
func (s *session) capabilities() {
	o := &s.server.opt
	s.capability("IMPLEMENTATION", o.Implementation)
	s.capability("VERSION", "1.0")
	s.capability("SASL", strings.Join(s.mechanisms, " "))
	s.capability("SIEVE", strings.Join(o.Extensions, " "))
	if len(o.Notify) > 0 {
		s.capability("NOTIFY", strings.Join(o.Notify, " "))
	}
	s.capability("MAXREDIRECTS", strconv.Itoa(o.Redirects))
	s.capability("LANGUAGE", "en")
	s.capability("UNAUTHENTICATE")
	if s.client.TLS == "" {
		s.capability("STARTTLS")
	}
	if !s.account.IsZero() {
		s.capability("OWNER", s.account.String())
	}
}

func (s *session) capability(words ...string) {
	for i, w := range words {
		if i > 0 {
			s.out.WriteByte(' ')
		}
		s.out.WriteString(quote(w))
	}
	s.out.WriteString("\r\n")
}
