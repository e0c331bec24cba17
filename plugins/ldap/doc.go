// Package ldap is the directory plugin that asks an LDAP server which addresses exist and whether
// a password is right. See README.md.
//
// It promises: what a client sends is never part of a filter's structure or of a name; an empty
// password opens nothing; a server that fails, refers elsewhere or says too much is an error, which is
// "try again later", and never an answer. Every exchange has a deadline, every answer a bound.
// It keeps connections and nothing else, and is safe for concurrent use.
package ldap
