// Package arc is the plugin that seals mail which goes on to others, so that they can see what
// it was authenticated as when it arrived here (RFC 8617). See README.md.
//
// It keeps nothing between messages but its key, which it reads once. Messages are read in
// pieces, so memory does not depend on their size.
package arc
