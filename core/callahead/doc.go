// Package callahead knows which addresses exist in domains whose mailboxes are on a server
// behind us.
//
// What it knows comes from that server: it is asked (MAIL FROM:<>, RCPT TO, QUIT) about an
// address that mail is for and of which nothing is known, and every delivery teaches what
// became of its recipients. It promises: an address is called unknown only if that server
// said so, lately; an address that is known stays so while that server is down; when nothing
// is known and nobody can be asked the answer is 450. One address is asked about once at a
// time, however many wait; a next hop is asked so many questions at a time and no more; a
// client can make the gateway ask about so many unknown addresses in an hour and no more. A
// server that takes an address that nobody has takes all of them: its domain is then as one with
// any recipient, with a warning, and that is looked at again.
//
// What is known is kept in one SQLite file of at most Options.Max addresses, written behind:
// a crash forgets what was learned in the last second or so, which costs another question.
// Addresses are compared without regard to case. It refuses to know how a next hop is talked to, what an
// alias is, and who may relay. It is safe for concurrent use.
package callahead
