// Package dkim is the plugin that signs outgoing mail (RFC 6376, RFC 8463). See README.md.
//
// It promises not to sign with keys that the DNS says it does not have, and never to
// overwrite or delete a private key. It refuses to know how records get into the DNS. Durable
// are the keys and, beside them, since when the DNS has shown or lacked each. Its Service alone moves
// keys and writes that down; one works at a time. Filter may be called concurrently, and
// never waits for the DNS. Messages are read in pieces, so memory does not depend on their
// size.
package dkim
