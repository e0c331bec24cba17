// Package child runs the programs of plugins as child processes, each confined as its [Spec]
// says, and ends them with all that they started.
//
// What it promises:
//   - No process outlives its [Parent], however that ends. Three things see to that: the
//     kernel (the death signal of a thread that lives as long as the parent), the SDK (a pipe
//     that is closed), and a guard, a process of its own that kills whole process groups
//     (see guard.go). What a previous parent still left behind is ended when the next one is
//     opened, found by pid and start time or by a random mark in its environment, never by
//     name.
//   - A process gets no environment but its own, no standard input, and a socket directory
//     that only its user can enter. What else it may do core/confine sees to.
//   - It never waits to be read: its output goes to pluginlog, but for the handshake.
//   - An error before a process is there says what the admin can do.
//
// On disk there is RunDir, which nobody else may use meanwhile: "lock", one file "p<pid>" per
// process (its pid, start time, boot and mark), one "c<pid>" with its control groups, "sockets"
// and "sockets.shared" with the places of socket directories that are elsewhere, and those that
// are not. Nothing in it is worth keeping when the parent is gone.
//
// The package knows nothing of gRPC, calls, restarts, or what a plugin is for. A [Parent] is
// safe for concurrent use. A [Process] is started once, by one goroutine; after that its methods
// are too.
package child
