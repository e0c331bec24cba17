package milter

import (
	"bytes"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// toMilter is the value of a field as milters take it: folded with bare LFs, and with the
// white space after the colon only if that was agreed on (SMFIP_HDR_LEADSPC).
func toMilter(f mail.Field, leading bool) string {
	raw := f.Raw()
	if i := bytes.IndexByte(raw, ':'); i >= 0 {
		raw = raw[i+1:]
	}
	raw = bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
	if !leading {
		raw = bytes.TrimLeft(raw, " \t")
	}
	return text(strings.ReplaceAll(string(raw), "\r\n", "\n"))
}

// fromMilter is the value of a field that a milter made, as a message has it.
func fromMilter(name, value string, leading bool) string {
	if leading { // the gateway writes that space itself
		value = strings.TrimPrefix(value, " ")
	}
	return mail.FoldValue(name, value)
}
