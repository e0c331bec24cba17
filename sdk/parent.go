package sdk

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/postern-mail/postern/sdk/proto"
)

// watchParent ends the process and its children when the gateway is gone, however it went:
// the gateway holds the other end of a pipe, which the kernel closes. The parent's pid is a
// second witness.
func watchParent() error {
	if v := os.Getenv(proto.EnvParentFD); v != "" {
		fd, err := strconv.Atoi(v)
		if err != nil || fd < 3 {
			return fmt.Errorf("%s=%q is not a file descriptor", proto.EnvParentFD, v)
		}
		syscall.CloseOnExec(fd)
		go func() {
			f := os.NewFile(uintptr(fd), "gateway")
			var b [1]byte
			for {
				// Nothing is ever written; the read returns when the gateway is dead.
				if _, err := f.Read(b[:]); err != nil {
					die()
				}
			}
		}()
	}
	if v := os.Getenv(proto.EnvParentPID); v != "" {
		parent, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("%s=%q is not a process", proto.EnvParentPID, v)
		}
		go func() {
			for ; os.Getppid() == parent; time.Sleep(2 * time.Second) {
			}
			die()
		}()
	}
	return nil
}

// die takes along what the plugin started.
func die() {
	if pid := os.Getpid(); syscall.Getpgrp() == pid {
		syscall.Kill(-pid, syscall.SIGKILL)
	}
	os.Exit(1)
}
