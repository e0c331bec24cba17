package smtpfilter

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// introduce tells a filter that wants to know where the message came from (Postfix's
// XFORWARD). One that does not take it does without.
func (t *transaction) introduce() error {
	attributes := forwarded(&t.m.Envelope)
	line := ""
	for i, a := range attributes {
		if name, _, _ := strings.Cut(a, "="); t.forward[name] {
			line += " " + a
		}
		if line == "" || i < len(attributes)-1 && len(line) < 200 {
			continue
		}
		st, _, err := t.command("XFORWARD" + line)
		if err != nil {
			return err
		}
		if st.Code == 421 {
			return fmt.Errorf("answers XFORWARD with %s", st.Error())
		}
		line = ""
	}
	return nil
}

// forwarded are the attributes of the client, encoded as xtext (RFC 3461 §4).
func forwarded(e *mail.Envelope) []string {
	const unknown = "[UNAVAILABLE]"
	c := &e.Client
	name, address, port, source := c.Host, unknown, unknown, "REMOTE"
	if c.Addr.IsValid() {
		address, port = c.Addr.String(), strconv.Itoa(int(c.Port))
		if c.Addr.Is6() {
			address = "IPV6:" + address
		}
	}
	if e.Origin == mail.Submitted {
		source = "LOCAL"
	}
	protocol := "SMTP"
	if strings.HasPrefix(c.Protocol, "E") || strings.HasPrefix(c.Protocol, "UTF8") {
		protocol = "ESMTP"
	}
	out := []string{}
	for _, a := range [][2]string{{"NAME", name}, {"ADDR", address}, {"PORT", port}, {"PROTO", protocol}, {"HELO", c.Helo}, {"IDENT", e.ID}, {"SOURCE", source}} {
		if a[1] == "" {
			a[1] = unknown
		}
		out = append(out, a[0]+"="+xtext(a[1]))
	}
	return out
}

// xtext is s, cut where it is long.
func xtext(s string) string {
	var b []byte
	for i := 0; i < len(s) && len(b) < 250; i++ {
		b = mail.AppendXtext(b, s[i:i+1])
	}
	return string(b)
}
