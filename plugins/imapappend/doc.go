// Package imapappend is the plugin that stores messages on IMAP servers, with APPEND. See
// README.md.
//
// A message is stored when the server has said OK to APPEND; how durable that is, is the
// server's promise. Each message carries its delivery's key in a header field; a delivery
// that was tried before is first looked for by it, so that an answer that got lost does not
// make a second message. Anything that is not a clear refusal is temporary: no connection,
// no log-in, no answer.
//
// Messages are streamed; memory does not depend on their size. Connections are bounded in
// number, every wait has a deadline, and what a server may say in one delivery is bounded.
// It is safe for concurrent use.
package imapappend
