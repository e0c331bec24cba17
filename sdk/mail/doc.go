// Package mail is the vocabulary that every part of Postern shares: addresses,
// envelopes, headers, bodies and the status of a delivery.
//
// Values are parsed at the edge and typed inside: a [Path] or [Domain] in hand is
// valid and nobody splits it again. The null reverse-path is the zero [Path].
//
// The package imports the standard library and x/net/idna only, keeps no state, and its
// values are safe for concurrent reading.
package mail
