// Package confine is what a plugin's process may do: who it runs as, how much memory and how
// many processes it may have, which program it is, and which files and networks it reaches. It
// also finds and ends processes with everything that they started, however that got away.
//
// It promises:
//   - What cannot be confined at all is an error. Where the kernel has less than the best, what
//     is done instead can be asked for the log ([Cage.MemoryBy], [Rules.Gaps]).
//   - All of it holds from the process's first instruction on, if it can be held before that
//     ([Cage.Hold]); rules always do. Network namespaces are the caller's: a flag of its fork.
//   - Nothing is ended or removed by name alone: a process is known by its pid and start time
//     or by a random mark in its environment, a control group by the prefix that only
//     [NewCage] gives.
//
// The package refuses to know what a plugin is, when it is started, and what its end means.
// It keeps nothing: control groups and processes are the kernel's, and who makes them notes
// them where a later run finds them. Functions are safe for concurrent use, a [Cage] and
// [Rules] are for one goroutine at a time.
package confine
