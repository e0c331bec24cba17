// Package sdk is what the author of a plugin imports: the interfaces a plugin may
// implement, the verdict it gives, and [Serve], which is the whole of main.
//
// A plugin implements one or more of [Filter], [Gate], [Planner], [Mailbox], [Directory],
// [Service] and [Observer], and [Configurer] if it has settings. README.md leads from
// nothing to an installed one, and `postern plugin new` writes the beginning.
//
// A plugin is a process of its own. The gateway starts it, configures it, calls it
// concurrently, and ends it. The contract:
//
//   - Life. Describe (the [Manifest]) comes first, then Configure once, then calls. After
//     a change of its settings a new process is started beside the old one, so a plugin
//     never has to reconfigure itself. It is killed when it does not answer a health check,
//     and ends by itself when the gateway dies.
//   - Deadlines. The context of every call ends when the gateway stops waiting. What is
//     answered later is thrown away.
//   - Content. A [mail.Message] is valid during the call only and must not be changed. Its
//     header block and a small body are in memory; a large body is a file that is read in
//     pieces through [mail.Body.Open]. A plugin that declares [NeedHeader] gets no body.
//     A new body is written through [NewBody], in pieces as well.
//   - Answers. A verdict may only ask for what the manifest declares. Anything else, like
//     any malformed answer, is a fault of the plugin and is never carried out.
//   - Header fields that people and servers believe to be the plugin's are named in
//     Manifest.Owns (or by an [Owner]): the gateway removes those that a message brings along,
//     also where the plugin gives no answer.
//   - Failure. An error, a panic, a crash or a missed deadline means "no answer": what
//     happens to the message is the admin's choice (on_failure), by default "try again
//     later". To refuse mail, say so in a verdict. A panic in a call fails that call only.
//   - Output. Standard output belongs to the protocol until Serve has begun; print nothing
//     there. What is written to standard error, log and slog goes to the gateway's log,
//     line by line, 4 KiB at most each, and not faster than it wants to read.
//   - Rights. There is no inherited environment and no standard input, and without
//     Manifest.Network no network, where the kernel can see to that.
//   - Services. Through the [Host] in its [Config] (or [HostFrom] a call's context) a plugin can
//     submit messages, log clients in, look up addresses, ask for folders, keep data about
//     accounts and state of its own, use the gateway's certificate, log and count: what its manifest
//     declares, and nothing else. Package sdktest has a Host for tests.
//
// The package imports no part of the gateway.
package sdk
