package suite

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// A sample is a message that a plugin has to have an answer to.
type sample struct {
	name string
	m    *mail.Message
}

// heavy says that there is much of what engines are asked about one by one.
func (s sample) heavy() bool {
	fields := 0
	for range s.m.Header.Fields {
		fields++
	}
	return fields > 100 || len(s.m.Envelope.Recipients) > 100
}

const largeBody = 5 << 20

// corpus is what the world sends, and what the gateway may make of it. Large bodies are
// put into dir.
func corpus(dir string, origin mail.Origin) ([]sample, error) {
	plain := "From: Alice <alice@example.com>\r\nTo: bob@example.org\r\nSubject: lunch\r\n" +
		"Date: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n\r\n"
	body := "Shall we?\r\n\r\nAlice\r\n"
	of := func(header, body string) *mail.Message { return message(origin, header, []byte(body)) }
	with := func(change func(*mail.Message)) *mail.Message {
		m := of(plain, body)
		change(m)
		return m
	}
	all := []sample{
		{"plain message", of(plain, body)},
		{"no header fields", of("\r\n", body)},
		{"no body", of(plain, "")},
		{"no blank line after the header", of(strings.TrimSuffix(plain, "\r\n"), "")},
		{"nothing at all", of("", "")},
		{"8-bit header and body that is no UTF-8", of("From: Andr\xe9 <a@example.com>\r\nSubject: \xff\xfe caf\xe9\r\n\r\n", "\xe9\xff\xfe\r\n\x80")},
		{"control characters", of("Subject: a\x00b\x1b[2Jc\x7f\r\nX-Empty:\r\nX-Spaces: \t \r\n\r\n", "\x00\x01\x02\r\n")},
		{"folded and repeated fields", of("Subject: one\r\n two\r\n\tthree\r\nSubject:\r\n \r\nReceived: a\r\nReceived: b\r\n\r\n", body)},
		{"lines that are no fields", of("Subject: x\r\nthis is no field\r\n: nor this\r\nNor This: indeed\r\n\r\n", body)},
		{"very long line", of("Subject: "+strings.Repeat("x", 200<<10)+"\r\n\r\n", strings.Repeat("y", proto.MaxInline))},
		{"header of 1 MiB", of(fill(plain, proto.MaxHeader), body)},
		{"20,000 fields", of(strings.Repeat("X-Field: value\r\n", 20000)+"\r\n", body)},
		{"body of 64 KiB inline", of(plain, strings.Repeat("x", proto.MaxInline))},
		{"MIME parts 200 deep", of(nested(200))},
		{"MIME without an end", of("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\r\n\r\n", "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b")},
		{"null reverse-path", with(func(m *mail.Message) { m.Envelope.ReversePath = mail.Path{} })},
		{"1000 recipients", with(func(m *mail.Message) {
			for i := range 999 {
				m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: mail.MustPath(fmt.Sprintf("r%d@example.org", i))})
			}
		})},
		{"odd addresses", with(oddAddresses)},
		{"no client", with(func(m *mail.Message) { m.Envelope.Client = mail.Client{} })},
		{"client that logged in", with(func(m *mail.Message) {
			m.Envelope.Client.User, m.Envelope.Client.Class, m.Envelope.Client.Protocol = "alice@example.com", mail.Authenticated, "ESMTPSA"
			m.Envelope.Client.Mechanism = "SCRAM-SHA-256"
		})},
		{"client whose name does not lead back", with(func(m *mail.Message) { m.Envelope.Client.Host = "" })},
		{"verdicts of plugins before it", with(func(m *mail.Message) {
			m.Scores = map[string]float64{"spam/total": 99.5, "spam/odd": -1e300}
			m.Notes = map[string]string{"auth/spf": "fail", "x/\u00fc": strings.Repeat("n", 4096)}
		})},
	}
	large, err := inFile(dir, plain)
	if err != nil {
		return nil, err
	}
	return append(all, sample{"body of 5 MiB in a file", with(func(m *mail.Message) { m.Body = large })}), nil
}

func message(origin mail.Origin, header string, body []byte) *mail.Message {
	return &mail.Message{
		Envelope: mail.Envelope{
			ID:          "0c1f3k9w2m4xq",
			Origin:      origin,
			ReversePath: mail.MustPath("alice@example.com"),
			Recipients:  []mail.Recipient{{Path: mail.MustPath("bob@example.org")}},
			Client: mail.Client{
				Addr: netip.MustParseAddr("192.0.2.7"), Port: 40000, Helo: "mail.example.com", Host: "mail.example.com",
				Protocol: "ESMTPS", TLS: "TLS1.3 TLS_AES_128_GCM_SHA256", Listener: "127.0.0.1:25",
				PTR: "mail.example.com", Connections: 1,
			},
		},
		Header: mail.NewHeader([]byte(header)),
		Body:   mail.InlineBody(body),
	}
}

// fill makes a header of n bytes.
func fill(header string, n int) string {
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(header, "\r\n"))
	line := "X-Filler: " + strings.Repeat("f", 900) + "\r\n"
	for b.Len()+2*len(line) < n {
		b.WriteString(line)
	}
	b.WriteString("X-Last: " + strings.Repeat("l", n-b.Len()-len("X-Last: \r\n\r\n")) + "\r\n\r\n")
	return b.String()
}

func nested(depth int) (header, body string) {
	part := func(i int) string { return fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n", i) }
	var b strings.Builder
	for i := 1; i < depth; i++ {
		fmt.Fprintf(&b, "--b%d\r\n%s\r\n", i-1, part(i))
	}
	fmt.Fprintf(&b, "--b%d\r\n\r\nthe core\r\n", depth-1)
	return "MIME-Version: 1.0\r\n" + part(0) + "\r\n", b.String()
}

func oddAddresses(m *mail.Message) {
	m.Envelope.UTF8 = true
	m.Envelope.ReversePath = mail.MustPath(`"a b\"c"@[192.0.2.1]`)
	m.Envelope.EnvelopeID = "id with spaces \u00e9"
	m.Envelope.Recipients = []mail.Recipient{
		{Path: mail.Path{Local: "postmaster"}},
		{Path: mail.MustPath("j\u00f6rg@xn--bcher-kva.example"), Original: mail.MustPath("alias@example.org")},
		{Path: mail.MustPath("x@[IPv6:2001:db8::1]"), Notify: mail.NotifyNever, ORCPT: "rfc822;x@example.net"},
	}
}

// inFile makes a body that is part of a file, as large ones are.
func inFile(dir, header string) (mail.Body, error) {
	text := bytes.Repeat([]byte(strings.Repeat("0123456789abcdef", 4)+"\r\n"), largeBody/66)
	sum := crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli))
	name := filepath.Join(dir, "content")
	err := os.WriteFile(name, append([]byte(header), text...), 0o640)
	return mail.Body{Path: name, Offset: int64(len(header)), Size: int64(len(text)), Sum: sum, Summed: true}, err
}
