// Package arcchain validates and extends Authenticated Received Chains (RFC 8617).
//
// Validation promises the chain's state as RFC 8617 §5.2 defines it, in time linear in the
// size of the message for each of at most 50 sets, with a deadline for each look-up of a key;
// keys are looked up only as far as the chain holds. An answer that the DNS did not give
// makes the state unknown for now, not failed for good. Sealing makes the three fields of
// one more set; it never extends a chain whose last seal says that it has failed. The
// package does not decide whom to trust.
//
// A Validator may be used concurrently. Nothing is kept.
package arcchain
