// Package dkim is the plugin that signs outgoing mail (RFC 6376, RFC 8463). See README.md.
//
// It keeps nothing between messages but its keys, which it reads once. Messages are read in
// pieces, so memory does not depend on their size.
package dkim
