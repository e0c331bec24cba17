package dmarcreport

import (
	"github.com/postern-mail/postern/plugins/internal/dmarc"
	"github.com/postern-mail/postern/sdk/mail"
)

// Observation is what was found about one message. The fields of Row tell rows of a report
// apart; of Published and Reports the latest count.
type Observation struct {
	Published Published   `json:"p"`
	Reports   []mail.Path `json:"rua"`
	Row       Row         `json:"r"`
}

// Published is the policy of a domain, as it was found.
type Published struct {
	Domain  string `json:"d" xml:"domain"`
	P       string `json:"p" xml:"p"`
	SP      string `json:"sp,omitempty" xml:"sp,omitempty"`
	NP      string `json:"np,omitempty" xml:"np,omitempty"`
	ADKIM   string `json:"ad" xml:"adkim"`
	ASPF    string `json:"as" xml:"aspf"`
	Method  string `json:"-" xml:"discovery_method"`
	FO      string `json:"fo" xml:"fo"`
	Testing string `json:"t" xml:"testing"`
}

// PublishedBy describes a record.
func PublishedBy(domain mail.Domain, r *dmarc.Record) Published {
	mode := func(strict bool) string {
		if strict {
			return "s"
		}
		return "r"
	}
	p := Published{Domain: domain.String(), P: string(r.P), SP: string(r.SP), NP: string(r.NP), ADKIM: mode(r.StrictDKIM), ASPF: mode(r.StrictSPF), FO: r.FailureOptions, Testing: "n"}
	if r.Testing {
		p.Testing = "y"
	}
	return p
}

// Row is what messages of one row have in common. It is comparable.
type Row struct {
	IP          string `json:"ip"`
	Disposition string `json:"x"` // none, pass, quarantine or reject
	DKIM        bool   `json:"kd,omitempty"`
	SPF         bool   `json:"ks,omitempty"`
	// Override is the type of the reason for another disposition, with a comment.
	Override string `json:"o,omitempty"`
	Comment  string `json:"oc,omitempty"`

	HeaderFrom   string `json:"hf"`
	EnvelopeFrom string `json:"ef,omitempty"`

	SPFDomain string `json:"sd,omitempty"`
	SPFResult string `json:"sr,omitempty"`
	// Signatures are those that were verified, the most telling first.
	Signatures [MaxSignatures]Signature `json:"s"`
}

// MaxSignatures is how many signatures of a message are reported.
const MaxSignatures = 5

// Signature is the result of one; the zero Signature is none.
type Signature struct {
	Domain   string `json:"d,omitempty" xml:"domain"`
	Selector string `json:"s,omitempty" xml:"selector"`
	Result   string `json:"r,omitempty" xml:"result"`
	Reason   string `json:"h,omitempty" xml:"human_result,omitempty"`
}
