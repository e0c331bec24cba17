// Package managesieve is a server for ManageSieve (RFC 5804), over which people keep their
// Sieve scripts.
//
// It promises: no log-in, and no password, without TLS, and nothing that was said before TLS
// counts after it; a command is carried out as a whole, when all of it has been read, or not at
// all; what a client sends never becomes a command that it did not mean to send (where its
// commands cannot be told apart any more, the connection ends). Lines, literals, connections,
// log-in attempts, faults and the time for each of them are bounded, and so is what scripts on
// their way take of the memory, whatever clients do. Passwords and scripts are not logged.
//
// It refuses to know where scripts are kept, what is right with them ([Scripts]), and who may
// log in ([Logins]). SASL security layers, acting for somebody else and referrals there are
// not; SCRAM-SHA-1, which RFC 5804 §2.1 wants, only if Logins has it.
//
// Nothing here is durable. A [Server] is safe for concurrent use; so must be what is given to it.
package managesieve
