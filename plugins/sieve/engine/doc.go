// Package engine compiles and runs Sieve scripts (RFC 5228): a lexer, a parser, a checker and an interpreter.
//
// It is pure. A script is run over a message in an environment that the caller describes, and what comes out is a
// [Result]: what the script wants done, in order. Nothing is done, sent, stored or remembered; doing it, all or
// nothing, is up to the caller.
//
//	script, err := engine.Compile(text, engine.Options{})
//	result, err := script.Run(ctx, message, &engine.Env{From: "a@example.org", To: "b@example.net", Now: time.Now()})
//
// A compiled [Script] is immutable and may be run by many goroutines at the same time; compile once, keep it.
//
// Scripts are hostile: their size, nesting, variables, actions, redirects, includes and the work that a run may cost
// are bounded ([Limits]), matching takes linear time, and a script that breaks a bound or fails otherwise ends with an
// implicit keep and its [Error] (RFC 5228 §2.10.6). Messages are hostile as well.
//
// [Extensions] lists what scripts may require.
package engine
