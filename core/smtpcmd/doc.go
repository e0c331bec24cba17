// Package smtpcmd is the grammar of SMTP commands (RFC 5321 §4.1 and its extensions): what a
// server reads, strictly, and what a client writes.
//
// Promises:
//   - What a parser accepts is typed and safe: a path is a valid [mail.Path], no text in it
//     has a control character, no number is negative or overflows. What it refuses it refuses
//     with the reply to give, and that does not quote the client.
//   - What Append writes is one line, whatever is in it, and a server that knows the extensions
//     which it uses reads the same again.
//
// The package is functions of their arguments. It knows neither connections nor sessions: the
// order of commands, limits and policy are for those that call it.
package smtpcmd
