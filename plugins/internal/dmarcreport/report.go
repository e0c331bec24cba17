package dmarcreport

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Report is what was seen of one policy domain in one period.
type Report struct {
	Published  Published
	Reports    []mail.Path // who wants it, by the record
	Begin, End time.Time

	rows    map[Row]int
	dropped int // rows that there was no room for
}

// Sender is who reports.
type Sender struct {
	Hostname  string
	Org       string
	Email     string // for questions
	From      mail.Path
	Generator string
}

// ID is the report's identifier, the same whenever it is made again.
func (r *Report) ID(s Sender) string {
	return fmt.Sprintf("%d.%s@%s", r.Begin.Unix(), r.Published.Domain, s.Hostname)
}

// FileName is the name of the attachment (RFC 9990, Report Delivery).
func (r *Report) FileName(s Sender) string {
	return fmt.Sprintf("%s!%s!%d!%d.xml.gz", s.Hostname, r.Published.Domain, r.Begin.Unix(), r.End.Unix())
}

type feedback struct {
	XMLName  xml.Name `xml:"urn:ietf:params:xml:ns:dmarc-2.0 feedback"`
	Version  string   `xml:"version"`
	Metadata struct {
		Org       string `xml:"org_name"`
		Email     string `xml:"email"`
		ID        string `xml:"report_id"`
		Begin     int64  `xml:"date_range>begin"`
		End       int64  `xml:"date_range>end"`
		Error     string `xml:"error,omitempty"`
		Generator string `xml:"generator,omitempty"`
	} `xml:"report_metadata"`
	Published Published `xml:"policy_published"`
	Records   []record  `xml:"record"`
}

type record struct {
	IP          string      `xml:"row>source_ip"`
	Count       int         `xml:"row>count"`
	Disposition string      `xml:"row>policy_evaluated>disposition"`
	DKIM        string      `xml:"row>policy_evaluated>dkim"`
	SPF         string      `xml:"row>policy_evaluated>spf"`
	Reason      *reason     `xml:"row>policy_evaluated>reason"`
	HeaderFrom  string      `xml:"identifiers>header_from"`
	Envelope    string      `xml:"identifiers>envelope_from"`
	Signatures  []Signature `xml:"auth_results>dkim"`
	SPFResult   *spfResult  `xml:"auth_results>spf"`
}

type reason struct {
	Type    string `xml:"type"`
	Comment string `xml:"comment,omitempty"`
}

type spfResult struct {
	Domain string `xml:"domain"`
	Scope  string `xml:"scope"`
	Result string `xml:"result"`
}

// XML encodes the report (RFC 9990, appendix A).
func (r *Report) XML(s Sender) ([]byte, error) {
	f := feedback{Version: "1.0", Published: r.Published}
	f.Published.Method = "treewalk"
	m := &f.Metadata
	m.Org, m.Email, m.ID, m.Begin, m.End, m.Generator = s.Org, s.Email, r.ID(s), r.Begin.Unix(), r.End.Unix(), s.Generator
	if r.dropped > 0 {
		m.Error = fmt.Sprintf("there was no room for %d more messages", r.dropped)
	}
	for row, n := range r.rows {
		f.Records = append(f.Records, row.record(n))
	}
	slices.SortFunc(f.Records, func(a, b record) int {
		return cmp.Or(strings.Compare(a.IP, b.IP), -cmp.Compare(a.Count, b.Count), strings.Compare(a.HeaderFrom, b.HeaderFrom), strings.Compare(a.Envelope, b.Envelope))
	})
	out, err := xml.MarshalIndent(f, "", " ")
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), append(out, '\n')...), nil
}

func (row Row) record(n int) record {
	word := func(ok bool) string {
		if ok {
			return "pass"
		}
		return "fail"
	}
	rec := record{IP: row.IP, Count: n, Disposition: row.Disposition, DKIM: word(row.DKIM), SPF: word(row.SPF), HeaderFrom: row.HeaderFrom, Envelope: row.EnvelopeFrom}
	if row.Override != "" {
		rec.Reason = &reason{row.Override, row.Comment}
	}
	for _, s := range row.Signatures {
		if s != (Signature{}) {
			rec.Signatures = append(rec.Signatures, s)
		}
	}
	if row.SPFDomain != "" {
		rec.SPFResult = &spfResult{row.SPFDomain, "mfrom", row.SPFResult}
	}
	return rec
}

const boundary = "=_postern-dmarc-report"

// Message is the report as a message (RFC 9990, Report Delivery).
func (r *Report) Message(s Sender, to []mail.Path, now time.Time) (mail.Header, []byte, error) {
	text, err := r.XML(s)
	if err != nil {
		return mail.Header{}, nil, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(text)
	if err := z.Close(); err != nil {
		return mail.Header{}, nil, err
	}
	var h mail.Header
	addresses := make([]string, len(to))
	for i, p := range to {
		addresses[i] = "<" + p.String() + ">"
	}
	id := r.ID(s)
	for _, f := range [][2]string{
		{"From", "<" + s.From.String() + ">"},
		{"To", strings.Join(addresses, ",\r\n\t")},
		{"Subject", "Report Domain: " + r.Published.Domain + "\r\n\tSubmitter: " + s.Hostname + "\r\n\tReport-ID: <" + id + ">"},
		{"Date", now.UTC().Format("Mon, 02 Jan 2006 15:04:05 +0000")},
		{"Message-ID", "<" + id + ">"},
		{"Auto-Submitted", "auto-generated"},
		{"MIME-Version", "1.0"},
		{"Content-Type", "multipart/mixed; boundary=\"" + boundary + "\""},
	} {
		if err := h.Append(f[0], f[1]); err != nil {
			return mail.Header{}, nil, err
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nThis is a DMARC aggregate report for %s\r\nby %s, for %s.\r\n\r\n",
		boundary, r.Published.Domain, s.Hostname, r.Begin.UTC().Format(dayForm))
	fmt.Fprintf(&b, "--%s\r\nContent-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment;\r\n\tfilename=\"%s\"\r\n\r\n", boundary, r.FileName(s))
	encoded := base64.StdEncoding.EncodeToString(packed.Bytes())
	for len(encoded) > 0 {
		n := min(76, len(encoded))
		b.WriteString(encoded[:n] + "\r\n")
		encoded = encoded[n:]
	}
	fmt.Fprintf(&b, "--%s--\r\n", boundary)
	return h, b.Bytes(), nil
}
