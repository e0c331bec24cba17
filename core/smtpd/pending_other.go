//go:build !unix

package smtpd

import "net"

// pending cannot tell.
func pending(net.Conn) (there, ok bool) { return false, false }
