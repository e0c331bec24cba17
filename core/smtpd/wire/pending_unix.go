//go:build unix

package wire

import (
	"net"
	"syscall"
)

// pending reports whether a socket has input that nobody read, and whether it could tell.
func pending(c net.Conn) (there, ok bool) {
	sc, isSocket := c.(syscall.Conn)
	if !isSocket {
		return false, false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false, false
	}
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		there = err == nil && n > 0
	})
	return there, err == nil
}
