// Package dkimverify verifies the DKIM signatures of a message (RFC 6376, RFC 8301, RFC 8463).
//
// It promises: one result for each signature that was looked at, in the order of the header;
// a body that is read once, in pieces; a bounded number of signatures and look-ups, each
// with a deadline; time linear in the size of the message. What the DNS did not answer is
// "temperror", never a failure for good. It refuses to know DMARC, and does not decide
// whether a message is accepted.
//
// It is code of our own, and not the library, because the library asks the DNS without a
// context, does not say which selector, algorithm and key a result is about, tells temporary
// errors from others by a type that a wrapper loses, refuses i= with capitals in its domain
// and messages without a body, ignores t=s, and copies a field again for every line of it;
// and because ARC needs its parts anyway.
//
// A Verifier may be used concurrently.
package dkimverify
