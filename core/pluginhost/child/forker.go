package child

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A forker starts processes from one OS thread that lives as long as the forker. The death
// signal of a child (PR_SET_PDEATHSIG) fires when the thread that forked it ends, and Go
// ends threads as it likes: only a locked one stays.
type forker struct {
	jobs  chan func()
	done  chan struct{}
	moved chan struct{} // closed when it has its thread
}

func newForker() *forker {
	f := &forker{jobs: make(chan func()), done: make(chan struct{}), moved: make(chan struct{})}
	go f.run()
	return f
}

func (f *forker) run() {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The process's first thread never ends, and what is put on it shows as the host's. While
		// we have it another goroutine has to run elsewhere.
		go f.run()
		<-f.moved
		runtime.UnlockOSThread()
		return
	}
	close(f.moved)
	defer close(f.done)
	for job := range f.jobs {
		job()
	}
}

// do runs job on the thread and waits for it.
func (f *forker) do(job func()) {
	finished := make(chan struct{})
	f.jobs <- func() { defer close(finished); job() }
	<-finished
}

// close ends the thread and with it whatever it started that still lives.
func (f *forker) close() {
	close(f.jobs)
	<-f.done
}
