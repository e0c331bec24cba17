// Package confine is what a plugin's process may do: who it runs as, how much memory and how
// many processes it may have, which program it is, and which files and networks it reaches. It
// also finds and ends processes with everything that they started, however that got away.
//
// It promises:
//   - What cannot be confined as asked is an error before the process runs its first
//     instruction, never a plugin with more rights than the configuration says.
//   - What cannot be promised is said: [Rules] have their limits, older kernels theirs
//     ([Rules.Gaps]). Network namespaces are the caller's: a flag where the process is forked.
//   - Nothing is ended or removed by name alone: a process is known by its pid and start time
//     or by a random mark in its environment, a control group by the prefix that only
//     [NewCage] gives.
//
// The package refuses to know what a plugin is, when it is started, and what its end means.
// It keeps nothing: control groups and processes are the kernel's, and who makes them notes
// them where a later run finds them. Functions are safe for concurrent use, a [Cage] and
// [Rules] are for one goroutine at a time.
package confine
