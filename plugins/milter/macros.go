package milter

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/emersion/go-milter"

	"github.com/postern-mail/postern/sdk/mail"
)

// The macros that Postfix sends with each command, and at connect those that it has to be
// told to send: no milter minds, and some want them. A milter can ask for another list.
var macroLists = [...]string{
	milter.StageConnect:  "j {daemon_name} {daemon_addr} {daemon_port} v _ {client_addr} {client_name} {client_port} {client_ptr} {client_resolve} {client_connections}",
	milter.StageHelo:     "{tls_version} {cipher} {cipher_bits}",
	milter.StageMailFrom: "i {auth_type} {auth_authen} {mail_addr} {mail_host} {mail_mailer}",
	milter.StageRcptTo:   "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
	milter.StageData:     "i",
	milter.StageEOH:      "i",
	milter.StageEOM:      "i",
}

var macroStages = map[milter.Code]milter.Stage{
	milter.CodeConn: milter.StageConnect, milter.CodeHelo: milter.StageHelo, milter.CodeMail: milter.StageMailFrom,
	milter.CodeRcpt: milter.StageRcptTo, milter.CodeData: milter.StageData, milter.CodeEOH: milter.StageEOH, milter.CodeEOB: milter.StageEOM,
}

// macroName brings the name of a macro into its canonical form: one character, or braces.
func macroName(s string) (string, error) {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}")
	if s == "" || len(s) > 100 || strings.ContainsAny(s, "{} \t\r\n\x00") {
		return "", errors.New("this is not the name of a macro")
	}
	if len(s) == 1 {
		return s, nil
	}
	return "{" + s + "}", nil
}

// sendMacros sends the macros that go before a command. to is the recipient of RCPT.
func (d *dialogue) sendMacros(code milter.Code, to *mail.Path) error {
	stage := macroStages[code]
	list, asked := d.conn.Macros[stage]
	if !asked {
		list = macroLists[stage]
	}
	var kv []string
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		name, err := macroName(name)
		if err != nil {
			continue
		}
		if value := d.macro(name, to); value != "" {
			kv = append(kv, name, text(value))
		}
	}
	if stage == milter.StageConnect { // what the admin adds is there from the beginning
		for name, value := range d.p.macros {
			if !containsName(kv, name) && value != "" {
				kv = append(kv, name, value)
			}
		}
	}
	if len(kv) == 0 {
		return nil
	}
	return d.session.Macros(code, kv...)
}

func containsName(kv []string, name string) bool {
	for i := 0; i < len(kv); i += 2 {
		if kv[i] == name {
			return true
		}
	}
	return false
}

// macro is the value of a macro, "" where there is none.
func (d *dialogue) macro(name string, to *mail.Path) string {
	if v, ok := d.p.macros[name]; ok {
		return v
	}
	e := &d.m.Envelope
	c := &e.Client
	switch name {
	case "i":
		return e.ID
	case "j", "{daemon_name}":
		return d.p.hostname
	case "v":
		return "Postern"
	case "{auth_authen}":
		return c.User
	case "{auth_type}":
		if c.User != "" && c.Mechanism == "" { // an older gateway stored it
			return "SASL" // milters ask whether there was one
		}
		return c.Mechanism
	case "{mail_addr}":
		return e.ReversePath.String()
	case "{mail_host}":
		return e.ReversePath.Domain.String()
	case "{mail_mailer}", "{rcpt_mailer}":
		return "smtp"
	case "{rcpt_addr}":
		if to != nil {
			return to.String()
		}
	case "{rcpt_host}":
		if to != nil {
			return to.Domain.String()
		}
	}
	return d.clientMacro(name)
}

// clientMacro is the value of a macro about the client and its connection.
func (d *dialogue) clientMacro(name string) string {
	c := &d.m.Envelope.Client
	switch name {
	case "_":
		host, _, addr := d.client()
		ptr, _ := d.reverse()
		if ptr != host {
			return ptr + " [" + addr + "] (may be forged)"
		}
		return host + " [" + addr + "]"
	case "{client_addr}":
		_, _, addr := d.client()
		return addr
	case "{client_name}":
		host, _, _ := d.client()
		return host
	case "{client_ptr}":
		ptr, _ := d.reverse()
		return ptr
	case "{client_resolve}":
		_, result := d.reverse()
		return result
	case "{client_port}":
		return strconv.Itoa(int(c.Port))
	case "{client_connections}":
		return strconv.Itoa(c.Connections) // 0: not counted, as with Postfix
	case "{daemon_addr}":
		host, _, _ := net.SplitHostPort(c.Listener)
		return host
	case "{daemon_port}":
		_, port, _ := net.SplitHostPort(c.Listener)
		return port
	case "{tls_version}":
		version, _, _ := strings.Cut(c.TLS, " ")
		if n, ok := strings.CutPrefix(version, "TLS1"); ok { // as OpenSSL writes it
			return "TLSv1" + n
		}
		return version
	case "{cipher}":
		_, cipher, _ := strings.Cut(c.TLS, " ")
		return cipher
	case "{cipher_bits}":
		return cipherBits(c.TLS)
	}
	return ""
}

// cipherBits is the length of the key of a cipher suite.
func cipherBits(suite string) string {
	switch {
	case strings.Contains(suite, "AES_256"), strings.Contains(suite, "CHACHA20"):
		return "256"
	case strings.Contains(suite, "AES_128"), strings.Contains(suite, "RC4_128"):
		return "128"
	case strings.Contains(suite, "3DES"):
		return "168"
	}
	return ""
}

// client is who the milter is told that the client is. Mail that no client brought comes, as
// with Postfix, from this machine.
func (d *dialogue) client() (host string, family milter.ProtoFamily, addr string) {
	c := &d.m.Envelope.Client
	a := c.Addr.Unmap().WithZone("")
	if !a.IsValid() {
		return "localhost", milter.FamilyInet, "127.0.0.1"
	}
	host, family = c.Host, milter.FamilyInet
	if host == "" {
		host = "unknown"
	}
	if a.Is6() {
		family = milter.FamilyInet6
	}
	return host, family, a.String()
}

// reverse is the name of the client's PTR record, which nobody has verified, and whether it leads
// back to the client, in Sendmail's words.
func (d *dialogue) reverse() (ptr, result string) {
	c := &d.m.Envelope.Client
	switch {
	case !c.Addr.IsValid(), c.Host != "":
		host, _, _ := d.client()
		return host, "OK"
	case c.PTR != "":
		return c.PTR, "FORGED"
	}
	return "unknown", "FAIL"
}
