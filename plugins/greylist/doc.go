// Package greylist is the plugin that asks senders it does not know to come back. See README.md.
//
// Who waits and who has waited is in the gateway's state, which all processes of the gateway
// share; what passed is also in a file, so that a restart of the gateway asks nobody twice.
// Where neither can be had mail passes: greylisting never is a reason to lose or to block it.
// Addresses are kept as digests only. It is safe for concurrent use; two sessions of one sender
// are told apart from two tries by compare-and-swap.
package greylist
