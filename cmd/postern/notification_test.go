package main_test

import (
	"bufio"
	"bytes"
	"io"
	"net/textproto"
	"strings"
	"testing"

	"github.com/emersion/go-message"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// notification is a delivery status notification, parsed by a library that is not ours.
type notification struct {
	header     message.Header
	kind       string // delivery-status or global-delivery-status
	text       string
	about      textproto.MIMEHeader   // the fields about the message
	recipients []textproto.MIMEHeader // the fields about each recipient
	original   string
}

// parseReport reads a report that a sink got, and checks its envelope and form (L-06).
func parseReport(t testing.TB, m smtptest.Message) notification {
	t.Helper()
	if m.From != "" || len(m.To) != 1 {
		t.Fatalf("report from <%s> to %v", m.From, m.To)
	}
	return parseReportText(t, m.Data)
}

func parseReportText(t testing.TB, text []byte) notification {
	t.Helper()
	e, err := message.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%.2000s", err, text)
	}
	typ, params, err := e.Header.ContentType()
	if err != nil || typ != "multipart/report" {
		t.Fatalf("not a report: %q %v\n%.2000s", typ, err, text)
	}
	r := notification{header: e.Header, kind: params["report-type"]}
	if v := e.Header.Get("Auto-Submitted"); v != "auto-replied" {
		t.Errorf("Auto-Submitted: %q", v)
	}
	for _, name := range []string{"From", "To", "Subject", "Date", "Message-Id", "Mime-Version"} {
		if n := len(e.Header.Values(name)); n != 1 {
			t.Errorf("%d fields %s in a report", n, name)
		}
	}
	parts := e.MultipartReader()
	var kinds []string
	for {
		p, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		typ, _, _ := p.Header.ContentType()
		body, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, typ)
		switch typ {
		case "text/plain":
			r.text = string(body)
		case "message/delivery-status", "message/global-delivery-status":
			r.about, r.recipients = statusFields(t, body)
		default:
			r.original = string(body)
		}
	}
	if len(kinds) != 3 || kinds[0] != "text/plain" || kinds[1] != "message/"+r.kind {
		t.Errorf("parts of a report of type %q: %v", r.kind, kinds)
	}
	if v := r.about.Get("Reporting-Mta"); v != "dns; mx.example.org" {
		t.Errorf("Reporting-MTA: %q", v)
	}
	if len(r.recipients) == 0 {
		t.Fatalf("a report on nobody:\n%s", text)
	}
	return r
}

// statusFields are the blocks of fields of RFC 3464 §2.1.
func statusFields(t testing.TB, body []byte) (about textproto.MIMEHeader, recipients []textproto.MIMEHeader) {
	t.Helper()
	for block := range strings.SplitSeq(strings.TrimSpace(string(body)), "\r\n\r\n") {
		h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(block + "\r\n\r\n"))).ReadMIMEHeader()
		if err != nil {
			t.Fatalf("%v in %q", err, block)
		}
		if about == nil {
			about = h
		} else {
			recipients = append(recipients, h)
		}
	}
	return about, recipients
}
