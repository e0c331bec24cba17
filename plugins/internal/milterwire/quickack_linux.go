package milterwire

import (
	"net"
	"syscall"
)

// quickAck asks the kernel to acknowledge at once what comes next. Milters write the changes
// of a message and their answer one by one and leave Nagle's algorithm on: each message with
// changes would wait 40 ms for a delayed acknowledgement of ours.
func quickAck(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) })
	}
}
