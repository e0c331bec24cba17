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
//   - No plugin outlives the host, however the host ends; see the package child. What a plugin
//     may do its Spec says; the network it has if its manifest asks for it.
//
// It puts together what knows nothing of it:
//
//	child        a process: confined, watched by the kernel and a guard, ended with all it started
//	hostservice  what a process may ask of the gateway
//	pluginlog    what it says, in the gateway's log
//	draft        the files in which it writes new bodies
//
// The rest is here: launch.go connects and configures a process, supervisor.go keeps one running,
// call.go asks it, suspects.go finds out which message it died of, and each kind of plugin has a
// file (filter.go, gate.go, mailbox.go and so on).
//
// On disk there is RunDir (see child), and DraftDir with what plugins write at the moment.
// Nothing in them is worth keeping when the host is down.
//
// The package knows nothing of queues, SMTP or what a verdict leads to. All methods are
// safe for concurrent use.
package pluginhost
