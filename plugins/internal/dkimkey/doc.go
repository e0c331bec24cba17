// Package dkimkey has the private keys that mail is signed with: PEM files named
// DOMAIN.SELECTOR.pem in one folder, and the DNS records that publish them.
//
// A file is made durable before its record is shown to anybody, is never overwritten, and is
// refused where every user of the machine can read it. Nothing is cached.
package dkimkey
