package mailauth

import (
	"fmt"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/arcchain"
	"github.com/postern-mail/postern/plugins/internal/authres"
	"github.com/postern-mail/postern/plugins/internal/dkimverify"
	"github.com/postern-mail/postern/plugins/internal/dmarc"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

const fieldName = authres.FieldName

// field is the value of our Authentication-Results field.
func (p *Plugin) field(f *facts, d decision) string {
	h := authres.Header{ID: p.id}
	if f.iprev.value != "" {
		h.Results = append(h.Results, f.iprevResult())
	}
	h.Results = append(h.Results, f.spfResult())
	h.Results = append(h.Results, f.dkimResults()...)
	if f.arc.State != arcchain.None {
		h.Results = append(h.Results, f.arcResult())
	}
	h.Results = append(h.Results, f.dmarcResults(d)...)
	return h.Format()
}

func (f *facts) spfResult() authres.Result {
	r := authres.Result{Method: "spf", Value: string(f.spf.Result)}
	switch {
	case f.spf.Err != nil:
		r.Reason = f.spf.Err.Error()
	case f.spf.Mechanism != "":
		r.Comment = "matched " + f.spf.Mechanism
	}
	if f.sender.IsZero() {
		r.Add("smtp", "helo", f.spf.Domain)
	} else {
		r.Add("smtp", "mailfrom", f.sender.String())
	}
	return r
}

func (f *facts) dkimResults() []authres.Result {
	if len(f.dkim) == 0 {
		return []authres.Result{{Method: "dkim", Value: "none"}}
	}
	out := make([]authres.Result, 0, len(f.dkim))
	for _, d := range f.dkim {
		r := authres.Result{Method: "dkim", Value: string(d.Value), Reason: d.Reason}
		if d.Bits > 0 && strings.HasPrefix(d.Algorithm, "rsa") {
			r.Comment = fmt.Sprintf("%d bit key", d.Bits)
		}
		if d.Testing {
			r.Comment = strings.TrimPrefix(r.Comment+", testing", ", ")
		}
		r.Add("header", "d", d.Domain.String())
		r.Add("header", "i", d.Identity)
		r.Add("header", "s", d.Selector)
		r.Add("header", "a", d.Algorithm)
		r.Add("header", "b", d.Signature)
		out = append(out, r)
	}
	return out
}

func (f *facts) dmarcResults(d decision) []authres.Result {
	if f.unclear != nil {
		return []authres.Result{{Method: "dmarc", Value: string(dmarc.PermError), Reason: f.unclear.Error()}}
	}
	if len(f.dmarc) == 0 {
		return []authres.Result{{Method: "dmarc", Value: string(dmarc.NoRecord), Reason: "From has no domain"}}
	}
	out := make([]authres.Result, 0, len(f.dmarc))
	for _, res := range f.dmarc {
		r := authres.Result{Method: "dmarc", Value: string(res.Value)}
		if res.Err != nil {
			r.Reason = res.Err.Error()
		}
		r.Add("header", "from", res.Author.String())
		if res.Record != nil {
			r.Comment = "p=" + string(res.Published)
			if res.Record.Testing {
				r.Comment += " testing"
			}
			if d.why != "" && res.Value == dmarc.Fail {
				r.Comment += ", " + d.why
			}
			r.Add("policy", "dmarc", string(res.Policy))
		}
		out = append(out, r)
	}
	return out
}

// maxRemoved bounds the edits: beyond it, all results are removed, ours or not. Nobody has
// so many who does not want to hide something.
const maxRemoved = 100

// removeForged removes results that claim to be ours (RFC 8601 §5).
func (p *Plugin) removeForged(h mail.Header) []sdk.Edit {
	var edits []sdk.Edit
	for i, v := range h.Values(fieldName) {
		if !mail.ClaimsResults(v, p.id) {
			continue
		}
		if len(edits) == maxRemoved {
			return []sdk.Edit{{Kind: sdk.HeaderRemove, Name: fieldName, Index: -1}}
		}
		// Before those that were found already, so that their numbers stay right.
		edits = append([]sdk.Edit{{Kind: sdk.HeaderRemove, Name: fieldName, Index: i}}, edits...)
	}
	return edits
}

// note says what was found, for later plugins and the admin's scripts.
func (f *facts) note(v *sdk.Verdict, d decision) {
	add := func(name, text string) {
		if text != "" {
			v.Note(name, text)
		}
	}
	add("iprev", f.iprev.value)
	add("spf", string(f.spf.Result))
	add("dkim", f.dkimValue())
	add("arc", f.arcValue())
	worst := f.worst()
	add("dmarc", string(worst.Value))
	add("dmarc_policy", string(worst.Policy))
	add("dmarc_action", d.why)
	if len(f.authors) > 0 {
		add("from_domain", f.authors[0].String())
	}
	add("authenticated", strings.Join(f.vouchers, " "))
}

// dkimValue is one word for all signatures: pass if one passes, else what the first is.
func (f *facts) dkimValue() string {
	if len(f.dkim) == 0 {
		return "none"
	}
	for _, d := range f.dkim {
		if d.Value == dkimverify.Pass {
			return "pass"
		}
	}
	return string(f.dkim[0].Value)
}
