// Package spam is the plugin that has mail judged by rspamd or SpamAssassin. See README.md.
//
// It keeps nothing between messages but which engine failed lately; when it asked a sender to
// come back it remembers that in the gateway's state. Messages are read in pieces, so memory does
// not depend on their size. What an engine says is read within limits, and what is not
// understood is a failure, never a pass. Nothing that an engine or a message says can begin
// another header field, another line of a reply or of the log.
package spam
