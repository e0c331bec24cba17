// Package dkimsig has what signatures in header fields are made of: tag lists, key records,
// canonicalization, hashes. DKIM (RFC 6376, RFC 8463) and ARC (RFC 8617) share it.
//
// It asks no DNS and decides about no policy: it says what a signature claims and whether
// the arithmetic holds. Everything that comes from a message or from the DNS is bounded
// before it is parsed, and each part takes time linear in its size. Bodies are read in
// pieces and never kept. Nothing here is shared between calls, so everything may be used
// concurrently, each value by one goroutine.
package dkimsig
