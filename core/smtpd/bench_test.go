package smtpd

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// discard is an Intake that reads and forgets.
type discard struct{ *rig }

func (discard) Receive(_ context.Context, _ *mail.Envelope, r io.Reader) (Receipt, error) {
	_, err := io.Copy(io.Discard, r)
	return Receipt{ID: "q", Reply: mail.OK(250, 0, 0, "Ok: queued as q")}, err
}

// BenchmarkSessions is one whole session with a message of 4 KiB, 20 at a time. The figures
// include the client, which is as small as it can be.
func BenchmarkSessions(b *testing.B) {
	benchmark(b, 4<<10)
}

// BenchmarkLarge is the same with 1 MiB.
func BenchmarkLarge(b *testing.B) {
	b.SetBytes(1 << 20)
	benchmark(b, 1<<20)
}

func benchmark(b *testing.B, size int) {
	r := startRig(b, &rig{}, func(o *Options) {
		o.Intake = discard{o.Intake.(*rig)}
		o.Limits.MessageSize = 2 << 20
	})
	msg := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78) + ".\r\n")
	b.SetParallelism(10) // of GOMAXPROCS, 2 here
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		br := bufio.NewReader(nil)
		for pb.Next() {
			if err := deliver(r.addr, br, msg); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func deliver(addr string, br *bufio.Reader, msg []byte) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	br.Reset(conn)
	for _, step := range []struct {
		send    []byte
		replies int
	}{{nil, 1}, {[]byte("EHLO x\r\n"), 1}, {[]byte("MAIL FROM:<a@x.test>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n"), 3}, {msg, 1}, {[]byte("QUIT\r\n"), 1}} {
		if len(step.send) > 0 {
			if _, err := conn.Write(step.send); err != nil {
				return err
			}
		}
		for step.replies > 0 {
			line, err := br.ReadSlice('\n')
			if err != nil {
				return err
			}
			if line[3] == ' ' {
				step.replies--
			}
		}
	}
	return nil
}
