package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

const (
	maxOwns    = 100 // names in a manifest
	maxOwnName = 255 // bytes of one
	minOwn     = 3   // what stands before a *, in bytes
)

// common are fields that are no plugin's own, in lower case; with a * at the end, all that begin
// so. A message is not what it was without those that its author or other servers wrote
// (RFC 5322 §3.6, RFC 2045 §3, RFC 2369, RFC 3834, RFC 6376, RFC 8601, RFC 8617), and ours are the
// gateway's affair.
const common = "received from to cc bcc reply-to sender subject date message-id in-reply-to references comments keywords " +
	"return-path delivered-to resent-* mime-version content-* list-* auto-submitted precedence disposition-notification-* " +
	"dkim-signature domainkey-signature authentication-results arc-* x-postern-*"

// Configured reads a plugin's answer to its settings: to the manifest comes what depends on
// them.
func (d *Description) Configured(r *proto.ConfigureResponse) error {
	m := d.Manifest
	m.Owns = append(m.Owns[:len(m.Owns):len(m.Owns)], r.GetOwns()...)
	if err := checkOwns(m, d.Filter); err != nil {
		return err
	}
	d.Manifest = m
	return nil
}

func checkOwns(m sdk.Manifest, filter bool) error {
	switch {
	case len(m.Owns) == 0:
		return nil
	case !filter || m.May&sdk.MayEditHeader == 0:
		return errors.New("only a filter with the right to edit the header owns fields")
	case len(m.Owns) > maxOwns:
		return fmt.Errorf("%d names of header fields that it owns are too many", len(m.Owns))
	}
	for _, own := range m.Owns {
		if err := checkOwned(own); err != nil {
			return fmt.Errorf("it cannot own the header field %q: %w", clip(own), err)
		}
	}
	return nil
}

func checkOwned(own string) error {
	begin, open := strings.CutSuffix(own, "*")
	if _, err := mail.FormatField(begin, ""); err != nil || strings.Contains(begin, "*") || len(begin) > maxOwnName {
		return errors.New("that is no name, nor the beginning of one with a * at its end")
	}
	if open && len(begin) < minOwn {
		return fmt.Errorf("before the * stand at least %d characters", minOwn)
	}
	begin = strings.ToLower(begin)
	for name := range strings.FieldsSeq(common) {
		theirs, all := strings.CutSuffix(name, "*")
		if begin == theirs || open && strings.HasPrefix(theirs, begin) || all && strings.HasPrefix(begin, theirs) {
			return fmt.Errorf("%s is not for a plugin to own", name)
		}
	}
	return nil
}
