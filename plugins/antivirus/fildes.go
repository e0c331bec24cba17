package antivirus

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/sdk/mail"
)

// maxMemory is the size of a message, in bytes, up to which it may be handed over as a file
// in memory. Larger ones are sent: memory must not depend on what people send.
const maxMemory = 1 << 20

// choice is whether messages are handed over as files.
type choice uint8

const (
	no choice = iota
	yes
	auto
)

// UnmarshalTOML implements [toml.Unmarshaler].
func (c *choice) UnmarshalTOML(v any) error {
	switch v {
	case true:
		*c = yes
	case false:
		*c = no
	case "auto":
		*c = auto
	default:
		return errors.New(`it is neither true nor false nor "auto"`)
	}
	return nil
}

// handing says which messages are handed over.
type handing struct {
	choice  choice
	refused atomic.Bool // a clamd could not take one: a sandbox may forbid it
}

func (h *handing) use(address string, size int64) bool {
	return h.choice != no && !h.refused.Load() && size <= maxMemory && strings.HasPrefix(address, "unix:")
}

// pass hands the message over with FILDES: a descriptor of a file with header and body. The
// body alone is a file already, but without its header clamd would not see a message in it.
func (c *clamd) pass(conn net.Conn, m *mail.Message) error {
	if u, ok := conn.(interface{ Unwrap() net.Conn }); ok {
		conn = u.Unwrap()
	}
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("the connection cannot carry a descriptor")
	}
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		return contentError{os.NewSyscallError("memfd_create", err)}
	}
	f := os.NewFile(uintptr(fd), "message")
	defer f.Close()
	r, err := m.Open()
	if err != nil {
		return contentError{err}
	}
	defer r.Close()
	buf := c.buffer()
	defer c.buffers.Put(buf)
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, io.MultiReader(strings.NewReader(letter), r), *buf); err != nil {
		return contentError{err}
	}
	if _, err := io.WriteString(socket, "zFILDES\x00"); err != nil {
		return err
	}
	_, _, err = socket.WriteMsgUnix([]byte{0}, unix.UnixRights(fd), nil)
	return err
}
