// Package milterwire puts right what github.com/emersion/go-milter's client cannot do: it
// stands between that client and a milter as the [net.Conn] that the client uses, reads whole
// packets from the milter, checks them, and hands on only what the client understands.
//
// What it promises:
//
//   - A wait for the milter ends with the deadline of its step ([Conn.Begin]) or when the
//     connection is abandoned; a milter that says "progress" gets its time again.
//   - Memory is bounded: a packet has at most [MaxPacket] bytes and is taken as it arrives,
//     not as it is announced; what a milter wants changed is bounded in number and bytes; a
//     new body is passed on piece by piece and never collected.
//   - Nothing that is out of place reaches the client: an answer that is unknown, malformed,
//     or not allowed in its step is a [ProtocolError].
//   - Answers that the client does not know are told through the Conn: skip, shutdown,
//     connection failure, recipients with parameters, the list of macros that a milter wants.
//
// What is written is collected until an answer is waited for. A Conn is for one goroutine,
// except Abandon.
package milterwire
