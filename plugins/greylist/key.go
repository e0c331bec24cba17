package greylist

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// sender is a reverse-path without what changes from message to message: the extension
// (VERP), and every word with a digit in it (BATV, SRS, numbers of messages).
func sender(p mail.Path) string {
	local, _, _ := strings.Cut(strings.ToLower(p.Local), "+")
	if strings.HasPrefix(local, "srs0=") || strings.HasPrefix(local, "srs1=") {
		return local[:4] + "@" + p.Domain.String() // the forwarder, whoever wrote
	}
	var out strings.Builder
	for local != "" {
		i := strings.IndexAny(local, "-_.=")
		word, rest := local, ""
		if i >= 0 {
			word, rest = local[:i], local[i:]
		}
		if strings.ContainsAny(word, "0123456789") {
			word = "#"
		}
		out.WriteString(word)
		if rest != "" {
			out.WriteByte(rest[0])
			rest = rest[1:]
		}
		local = rest
	}
	return out.String() + "@" + p.Domain.String()
}

// Kinds of keys.
const (
	tripletKey = "t/" // network, reverse-path, recipient: when it was first seen, or passed
	clientKey  = "c/" // client: when it passed
	countKey   = "n/" // client: how many triplets have waited
)

// key names a fact by a digest: what it is about is not to be read in the state or in a file.
func key(kind string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return kind + hex.EncodeToString(sum[:16])
}
