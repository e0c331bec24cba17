// Package tlsconf holds the gateway's certificate: loading, checking, reloading, and
// making one when none is configured.
//
// A [Server] always has a certificate that works. A reload that fails leaves the one in
// use in place. The files are only read, except that without a configured certificate a
// self-signed one is kept in the data directory:
//
//	DataDir/tls/            0700
//	  self-signed.pem       the certificate
//	  self-signed.key       its private key, 0600
//
// The package refuses a private key that others than its owner may read. A Server is safe
// for concurrent use.
package tlsconf
