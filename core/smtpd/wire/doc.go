// Package wire is the server's end of an SMTP connection, as octets: command lines and messages
// come in, reply lines go out. What one server takes for the end of a line or of a message and
// another does not is how mail and commands are smuggled, so there is one reading of it here,
// with no exemption for anybody (RFC 5321 §2.3.8, §4.1.1.4).
//
// Promises:
//   - A command line ends in CRLF and has no more octets than asked for. One that does not is an
//     error after which nothing of the input may be read as a command.
//   - A [Body] gives a message in wire form: CRLF line ends only, no NUL, dots unstuffed, ended
//     by a line end also where BDAT left it out. Its reader ends with io.EOF only when the end of
//     the message was really seen, and its err is [ErrEnd] only then.
//   - A reply is one printable line of at most 512 octets, written before the connection waits
//     for more.
//   - Every wait has a deadline, every buffer a bound. A message that comes too slowly, in too
//     long lines or beyond its size ends with an error.
//
// It knows no commands (but that AUTH has longer lines), no transactions and no replies: what is
// read when, and what is said to whom, is the session's affair. It keeps nothing durable.
//
// A [Conn] and its bodies are for one goroutine; [Conn.Drain] and [Conn.Cut] are for others.
// [Buffers] are shared.
package wire
