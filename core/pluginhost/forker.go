package pluginhost

import "runtime"

// A forker starts processes from one OS thread that lives as long as the forker. The death
// signal of a child (PR_SET_PDEATHSIG) fires when the thread that forked it ends, and Go
// ends threads as it likes: only a locked one stays.
type forker struct {
	jobs chan func()
	done chan struct{}
}

func newForker() *forker {
	f := &forker{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer close(f.done)
		for job := range f.jobs {
			job()
		}
	}()
	return f
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
