// Package maildir is the plugin that stores messages in Maildirs. See README.md.
//
// On disk, below the path of the settings, one directory per mailbox:
//
//	tmp/                  messages that are being written
//	new/                  messages that no reader has seen yet
//	cur/                  the others, and those delivered with flags
//	.A.B/                 folder A/B: the same three, and an empty file "maildirfolder" (Maildir++)
//	dovecot-keywords      in each of them: which letter is which keyword (Dovecot)
//	subscriptions         the folders that the user wants to see
//	maildirsize           quota, and what is there (Maildir++)
//	postern-quota-warned  is there while the owner knows that the mailbox is nearly full
//
// A message is a file SECONDS.QKEY.HOST,S=SIZE,W=SIZE with the suffix ":2,FLAGS" in cur:
// time of delivery, the delivery's key (escaped; see [safe]), the gateway's name, the length in
// bytes, twice. It holds the message byte for byte, with CRLF line ends.
//
// A delivery writes the file in tmp, syncs it, renames it into new and syncs new; only then
// is it reported as stored. What a crash leaves in tmp is removed after 36 hours. The key
// in the name makes it idempotent: a delivery that was tried before is looked for. Files that
// other programs change as well are replaced as a whole under those programs' locks, or
// appended to in one write. maildirsize alone is not durable: it can be counted again.
//
// Deliveries are safe for concurrent use, also by other processes and beside readers.
package maildir
