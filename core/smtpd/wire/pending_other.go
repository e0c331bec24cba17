//go:build !unix

package wire

import "net"

// pending cannot tell.
func pending(net.Conn) (there, ok bool) { return false, false }
