// Command service is an echo server: it answers every line with its greeting, its process id and
// the line. At the line "exit" it dies. As long as it works there is a file, and if the file is
// there when it begins, two processes work at the same time: it says so and dies.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/postern-mail/postern/sdk"
)

func main() { sdk.Serve(&echo{}, sdk.Manifest{Name: "service", Version: "1.0"}) }

type echo struct {
	cfg struct {
		Addresses []string `toml:"addresses"`
		Greeting  string   `toml:"greeting"`
		File      string   `toml:"file"`
	}
}

func (e *echo) Configure(_ context.Context, c sdk.Config) error { return c.Decode(&e.cfg) }

func (e *echo) Listeners(context.Context) ([]string, error) { return e.cfg.Addresses, nil }

func (e *echo) Serve(ctx context.Context, listeners []net.Listener) error {
	if err := e.mark(); err != nil {
		return err
	}
	defer os.Remove(e.cfg.File)
	var wg sync.WaitGroup
	for _, l := range listeners {
		defer context.AfterFunc(ctx, func() { l.Close() })()
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { e.talk(ctx, c) })
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// mark makes the file, with our pid in it. One of a process that died does not count.
func (e *echo) mark() error {
	if b, err := os.ReadFile(e.cfg.File); err == nil {
		if _, err := os.Stat("/proc/" + string(b)); err == nil {
			return errors.New("another process is active: " + string(b))
		}
	}
	return os.WriteFile(e.cfg.File, fmt.Append(nil, os.Getpid()), 0o600)
}

func (e *echo) talk(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.(interface{ CloseRead() error }).CloseRead() })()
	in := bufio.NewScanner(io.LimitReader(c, 1<<20))
	for in.Scan() {
		if in.Text() == "exit" {
			os.Exit(3)
		}
		fmt.Fprintf(c, "%s %d %s\n", e.cfg.Greeting, os.Getpid(), in.Text())
	}
}
