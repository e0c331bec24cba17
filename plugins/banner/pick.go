package banner

import (
	"strings"

	"github.com/postern-mail/postern/plugins/internal/mime"
)

// pick finds the parts that are shown as the text of a message: one, or the alternatives
// of one. Without any, why says what stands in the way. The walk has bounded the depth.
func (p *Plugin) pick(part *mime.Part) (parts []*mime.Part, why string) {
	switch {
	case isSealed(part):
		return nil, "signed or encrypted"
	case part.Disposition == "attachment":
		return nil, "no text"
	case part.Type == "text/plain" || part.Type == "text/html":
		if names, _ := part.Names(); len(names) > 0 && part.Parent != nil {
			return nil, "no text" // an attachment that is shown
		}
		return []*mime.Part{part}, ""
	case part.Type == "multipart/report" || part.Type == "multipart/digest" || !part.IsMultipart() || len(part.Children) == 0:
		return nil, "no text"
	case part.Type == "multipart/related":
		return p.pick(part.Children[0])
	}
	for _, child := range part.Children {
		list, reason := p.pick(child)
		switch {
		case reason == "signed or encrypted":
			return nil, reason
		case part.Type == "multipart/alternative", p.top && parts == nil:
			parts = append(parts, list...)
		case !p.top && list != nil:
			parts = list // the last one
		}
	}
	if parts == nil {
		return nil, "no text"
	}
	return parts, ""
}

// isSealed reports whether a change would break a signature or an encryption
// (RFC 1847, RFC 8551 §3).
func isSealed(p *mime.Part) bool {
	switch p.Type {
	case "multipart/signed", "multipart/encrypted":
		return true
	}
	return strings.HasSuffix(p.Type, "pkcs7-mime") || strings.HasPrefix(p.Type, "application/pgp")
}

// defects are those of a part and of all around it.
func defects(p *mime.Part) mime.Defect {
	var d mime.Defect
	for ; p != nil; p = p.Parent {
		d |= p.Defects
	}
	return d
}
