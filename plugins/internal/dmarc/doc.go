// Package dmarc evaluates DMARC as RFC 9989 has it.
//
// What changed since RFC 7489: the organizational domain comes from a walk up the DNS
// tree (§4.10) and not from a list of public suffixes; psd=, np= and t= are new, pct=, rf= and
// ri= are gone; a record without p= may stand for p=none; of several records at a name
// there is none.
//
// An evaluation asks for the author's domain and its parents, and for an authenticated domain only if
// it lies at or below the organizational domain of the author: another one cannot be aligned
// (§4.10.2), and the DNS of a stranger has no say in what becomes of mail in the name of
// somebody else. Each walk has at most eight queries, and a name is asked for once. The
// package says what the domain's owner prefers and leaves it to others to act on it.
package dmarc
