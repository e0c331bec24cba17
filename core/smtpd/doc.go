// Package smtpd receives mail: listeners and sessions for SMTP, submission and LMTP.
//
// The dialogue itself (order of commands, SASL exchange) is emersion/go-smtp's. It never
// sees the socket: between them stands a connection of our own that owns the socket, the
// TLS layer and the input, hands go-smtp one checked command at a time in a canonical
// form, and writes the replies. Everything that a stranger can get wrong on purpose is
// therefore judged on our side: line ends, lengths, pace and BDAT arithmetic by
// [github.com/postern-mail/postern/core/smtpd/wire] (a bare CR, bare LF or NUL in a message is
// refused and ends the connection, with no exemption for anybody), addresses and parameters by
// [github.com/postern-mail/postern/core/smtpcmd], pipelining (RFC 2920), STARTTLS (RFC 3207),
// limits and order here. go-smtp is told of BDAT as if it were DATA, so a message is always
// read by the goroutine of its session.
//
// Promises:
//   - A message reaches [Intake] only with an envelope that [Policy] accepted, in wire form
//     (CRLF line ends, dots unstuffed), and its reader ends with io.EOF only when the end of
//     the message was really seen. Any other end is an error, and an Intake that returns an
//     error has queued nothing.
//   - The accepting reply is written after Intake.Receive returned without an error.
//   - Every wait has a deadline, every buffer a bound. A panic of the code behind an
//     interface ends its session with 421 and nothing else.
//   - Credentials are neither logged nor offered to be sent without TLS.
//
// The package keeps nothing durable, knows neither queue nor plugins, and decides nothing
// about who may send what: it asks. A [Server] is safe for concurrent use; the interfaces
// it is given must be, too. The calls for one session come one after the other.
package smtpd
