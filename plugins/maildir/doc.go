// Package maildir is the plugin that stores messages in Maildirs. See README.md.
//
// On disk, below the path of the settings, one directory per mailbox:
//
//	tmp/   messages that are being written
//	new/   messages that no reader has seen yet
//	cur/   the others, and those delivered with flags
//	.A.B/  folder A/B: the same three, and an empty file "maildirfolder" (Maildir++)
//
// A message is a file SECONDS.QKEY.HOST,S=SIZE with the suffix ":2,FLAGS" in cur: time of
// delivery, the delivery's key (escaped; see [safe]), the gateway's name, the length in
// bytes. It holds the message byte for byte, with CRLF line ends.
//
// A delivery writes the file in tmp, syncs it, renames it into new and syncs new; only then
// is it reported as stored. What a crash leaves in tmp is removed after 36 hours. The key
// in the name makes it idempotent: a mailbox is searched once when it is first used, and
// what was delivered since is remembered. Deliveries are safe for concurrent use.
package maildir
