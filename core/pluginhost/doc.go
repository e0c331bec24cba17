// Package pluginhost runs plugins: it starts, configures, watches, restarts, drains and
// stops their processes, and hands out wrappers that always talk to the live one.
//
// What it promises:
//   - [Start] and [Host.Reload] are all or nothing, and bounded. After an error nothing that
//     they started is left.
//   - A call through a wrapper ends by its deadline, at once while the plugin is down (and
//     not about to be back), and with a [*Failure] for everything that is not an answer. A
//     verdict that breaks the contract or goes beyond the manifest is a failure too and is
//     never passed on.
//   - Filters and gates are asked over one stream where the plugin serves it, else by a call
//     each; nothing else differs. A plugin that ends its stream is replaced.
//   - A plugin that dies costs no message its answer but the one that kills it, which is
//     found out and named; see suspects.go.
//   - A process that dies or hangs is replaced, with back-off; see supervisor.go.
//   - No plugin outlives the host, however the host ends. Three things see to that: the
//     kernel (the death signal of a thread that lives as long as the host), the SDK (a pipe
//     that is closed), and a guard, a process of its own that kills whole process groups
//     (see guard.go). What a previous host still left behind is ended at the next start,
//     found by pid and start time or by a random mark in its environment, never by name.
//   - A plugin gets no environment but its own, no standard input, a socket directory that
//     only its user can enter, and as much of the log as its share. What else it may do its
//     Spec says, and core/confine sees to it; the network it has if its manifest asks for it.
//
// On disk there is RunDir, which nobody else may use meanwhile: "lock", one file "p<pid>"
// per process (its pid, start time, boot and mark), and socket directories; and
// DraftDir with what plugins write at the moment. Nothing in them is worth keeping when the
// host is down.
//
// The package knows nothing of queues, SMTP or what a verdict leads to. All methods are
// safe for concurrent use.
package pluginhost
