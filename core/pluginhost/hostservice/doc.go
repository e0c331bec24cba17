// Package hostservice serves plugins what they may ask of the gateway: submissions, log-ins,
// accounts, data, state and more. It declares those services as interfaces; who runs the
// gateway provides them.
//
// What it promises:
//   - Only who knows the token of a process, which is random and in that process's environment
//     alone, gets an answer, and only to calls whose right its manifest declares. Any other call
//     is told to [Options.Fault] and reaches no service.
//   - What a plugin asks for is checked before a service sees it: sizes, numbers, addresses. A
//     call ends by its time limit, and a plugin has few messages in submission at a time.
//   - A service gets the plugin's name from the gateway, never from the plugin. What went wrong
//     in a service is in the log, and not in the answer.
//
// It knows nothing of processes and of what plugins are called for. All methods are safe for
// concurrent use once [Server.Listen] has returned.
package hostservice
