// Package dnsbl is the plugin that asks lists in the DNS about clients and domains
// (RFC 5782) and adds up what they say. See README.md.
//
// What it learns is kept in memory, within bounds, for as long as the lists allow; nothing
// is durable. A list that does not answer, or that answers what it must not, never decides about
// mail: it is left alone for a while, and the log says so. It is safe for concurrent use.
package dnsbl
