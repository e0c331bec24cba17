// Package banner is the plugin that marks mail from outside and adds disclaimers. See
// README.md.
//
// It keeps nothing between messages. A text is put into the bytes of a message; those
// around it stay as they are.
package banner

import (
	"context"
	"errors"
	"fmt"
	"html"
	"mime"
	"strconv"
	"strings"
	"unicode/utf8"

	words "github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Mail says which mail is marked: "incoming" (from strangers, and fetched) or
	// "submitted" (by your users). Required.
	Mail string `toml:"mail"`
	// Domains of the recipients (incoming) or of the sender (submitted), with those below
	// them. Default: all.
	Domains []string `toml:"domains"`
	// SubjectPrefix is put before the subject. Default: none.
	SubjectPrefix string `toml:"subject_prefix"`
	// Header adds "X-External: yes". Default: false.
	Header bool `toml:"header"`
	// Text is added to text/plain. Default: none.
	Text string `toml:"text"`
	// HTML is added to text/html. Default: the Text, a paragraph with a border.
	HTML string `toml:"html"`
	// Position of Text and HTML: "top" or "bottom". Default: "top" for incoming mail,
	// "bottom" for submitted mail.
	Position string `toml:"position"`
}

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "banner",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayEditHeader | sdk.MayReplaceBody,
		// Reports and redirected mail have been marked, or are our own.
		Origins: []mail.Origin{mail.Incoming, mail.Submitted, mail.Fetched},
	}
}

// Plugin marks messages. It implements [sdk.Filter].
type Plugin struct {
	incoming bool
	domains  []mail.Domain
	prefix   string // as shown
	encoded  string // as written, with the space after it
	header   bool
	text     string // lines with CRLF, "" for none
	html     string
	top      bool
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
	_ sdk.Owner      = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{} }

// maxText bounds a text to be added, and maxPrefix one for the subject, in bytes.
const (
	maxText   = 64 << 10
	maxPrefix = 100
	maxLine   = 900 // RFC 5322 §2.1.1 allows 998
)

// Configure checks the settings.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	var s Settings
	if err := c.Decode(&s); err != nil {
		return err
	}
	faults := []error{p.configurePlace(s)}
	for _, name := range s.Domains {
		d, err := mail.ParseDomain(name)
		if err != nil {
			faults = append(faults, fmt.Errorf("settings: domains: %w", err))
		}
		p.domains = append(p.domains, d)
	}
	if s.SubjectPrefix == "" && !s.Header && s.Text == "" {
		faults = append(faults, errors.New("settings: there is nothing to add; set subject_prefix, header or text"))
	}
	if len(s.Text) > maxText || len(s.HTML) > maxText {
		faults = append(faults, fmt.Errorf("settings: text and html have at most %d bytes", maxText))
	}
	if strings.ContainsAny(s.Text+s.HTML, "\x00") {
		faults = append(faults, errors.New("settings: text and html cannot hold NUL"))
	}
	if s.HTML != "" && s.Text == "" {
		faults = append(faults, errors.New("settings: html goes with text, for the readers who see no HTML; set text"))
	}
	p.header = s.Header
	p.prefix = strings.TrimSpace(s.SubjectPrefix)
	if strings.ContainsFunc(p.prefix, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(p.prefix) > maxPrefix {
		faults = append(faults, fmt.Errorf("settings: subject_prefix is one line of at most %d bytes", maxPrefix))
	}
	if p.prefix != "" {
		p.encoded = encodePrefix(p.prefix)
	}
	p.setTexts(s)
	for line := range strings.SplitSeq(p.text+p.html, "\r\n") {
		if len(line) > maxLine {
			faults = append(faults, fmt.Errorf("settings: a line of text or html has at most %d bytes; break it", maxLine))
			break
		}
	}
	return errors.Join(faults...)
}

func (p *Plugin) configurePlace(s Settings) error {
	switch s.Mail {
	case "incoming":
		p.incoming = true
	case "submitted":
	default:
		return fmt.Errorf(`settings: mail: %q is neither "incoming" nor "submitted"`, s.Mail)
	}
	switch s.Position {
	case "":
		p.top = p.incoming
	case "top":
		p.top = true
	case "bottom":
	default:
		return fmt.Errorf(`settings: position: %q is neither "top" nor "bottom"`, s.Position)
	}
	return nil
}

// setTexts brings the texts into wire form.
func (p *Plugin) setTexts(s Settings) {
	if s.Text == "" {
		return
	}
	p.text = lines(s.Text)
	p.html = lines(s.HTML)
	if s.HTML == "" {
		p.html = `<div style="border:1px solid #888;padding:6px;margin:6px 0;font-family:sans-serif;font-size:13px">` +
			strings.ReplaceAll(html.EscapeString(strings.TrimRight(p.text, "\r\n")), "\r\n", "<br>\r\n") + "</div>\r\n"
	}
	// A line of its own keeps lines short, whatever it is put behind.
	p.html = "\r\n" + entities(p.html)
}

// entities writes what is not ASCII as references, which fit into every charset.
func entities(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			b.WriteString("&#" + strconv.Itoa(int(r)) + ";")
		}
	}
	return b.String()
}

// lines makes every line end CRLF and drops white space before it, which would mean
// something in format=flowed (RFC 3676).
func lines(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	var b strings.Builder
	for line := range strings.SplitSeq(strings.Trim(s, "\n"), "\n") {
		b.WriteString(strings.TrimRight(line, " \t"))
		b.WriteString("\r\n")
	}
	return b.String()
}

// encodePrefix writes what stands before the subject. The space after an encoded-word
// is in it: between two of them it would not be shown (RFC 2047 §6.2).
func encodePrefix(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x7f }) && !strings.Contains(s, "=?") {
		return s + " "
	}
	return mime.QEncoding.Encode("utf-8", s+" ") + " "
}

// externalField marks mail from outside.
const externalField = "X-External"

// Owns is the mark, where the settings want it.
func (p *Plugin) Owns() []string {
	if p.incoming && p.header {
		return []string{externalField}
	}
	return nil
}

// Filter marks a message for the recipients whom it concerns.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	v := sdk.Continue()
	if p.incoming != (m.Envelope.Origin != mail.Submitted) {
		return v, nil
	}
	if m.Body.Size == 0 || !m.Header.Separated() || !written(m.Header) {
		return v.Note("skipped", "no header or no body"), nil
	}
	only, all := p.concerned(&m.Envelope)
	if !all && len(only) == 0 {
		return v, nil
	}
	limit := func() {
		if !all {
			v.Only(only...)
		}
	}
	if p.header {
		v.AddHeader(externalField, "yes")
		limit()
	}
	if p.prefix != "" {
		p.subject(v, m.Header, limit)
	}
	if p.text != "" {
		if err := p.body(ctx, m, v, limit); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// written reports whether the sender wrote a header: what servers add is there always.
func written(h mail.Header) bool {
	for _, name := range []string{"From", "Subject", "To", "Date", "Message-ID", "Sender", "Cc", "Content-Type", "MIME-Version"} {
		if h.Has(name) {
			return true
		}
	}
	return false
}

// concerned lists the recipients for whom the message is marked, or says that all are.
func (p *Plugin) concerned(e *mail.Envelope) (only []int, all bool) {
	if len(p.domains) == 0 {
		return nil, true
	}
	if !p.incoming {
		return nil, p.ours(e.ReversePath.Domain)
	}
	for i, r := range e.Recipients {
		if p.ours(r.Path.Domain) || p.ours(r.Given().Domain) {
			only = append(only, i)
		}
	}
	return only, len(only) == len(e.Recipients)
}

func (p *Plugin) ours(d mail.Domain) bool {
	for _, own := range p.domains {
		if d.Under(own) {
			return true
		}
	}
	return false
}

const (
	maxSubject  = 32 << 10 // bytes of a subject to which something is added
	maxSubjects = 10       // that are marked from the top, and as many from the end
	maxBefore   = 32       // bytes of "Re:" and the like before a prefix that is there already
)

// subject puts the prefix before the subject, unless it stands there already, as it does in
// answers. Where there are several subjects, each is marked: readers show the first or the last.
func (p *Plugin) subject(v *sdk.Verdict, h mail.Header, limit func()) {
	values := rawValues(h, "Subject")
	if len(values) == 0 {
		v.InsertHeader(-1, "Subject", strings.TrimSpace(p.encoded))
		limit()
	}
	for i, raw := range values {
		switch {
		case i >= maxSubjects && i < len(values)-maxSubjects:
			continue
		case len(raw) > maxSubject:
			v.Note("skipped", "the Subject field is too long")
			continue
		case p.marked(raw):
			continue
		}
		value := p.encoded + raw
		if first, _, _ := strings.Cut(raw, "\r\n"); len(first)+len(p.encoded) > 900 { // RFC 5322 §2.1.1
			value = strings.TrimRight(p.encoded, " ") + "\r\n " + raw
		}
		if _, err := mail.FormatField("Subject", value); err != nil {
			v.Note("skipped", "the Subject field is malformed")
			continue
		}
		v.ChangeHeader(i, "Subject", value)
		limit()
	}
}

// marked reports whether a subject has the prefix already, where one sees it.
func (p *Plugin) marked(raw string) bool {
	shown, _ := words.DecodeWords(strings.ReplaceAll(raw, "\r\n", ""))
	i := strings.Index(strings.TrimSpace(shown), p.prefix)
	return i >= 0 && i <= maxBefore
}

// rawValues are the values of the fields of that name, from the top, with their folding.
func rawValues(h mail.Header, name string) []string {
	var out []string
	for _, f := range h.Fields {
		if strings.EqualFold(f.Name, name) {
			_, v, _ := strings.Cut(string(f.Raw()), ":")
			out = append(out, strings.TrimSuffix(strings.TrimLeft(v, " \t"), "\r\n"))
		}
	}
	return out
}
