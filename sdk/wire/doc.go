// Package wire is the host's half of the plugin protocol: it puts messages on the wire and
// takes answers off it. What comes from a plugin is not believed: [Describe] and [Verdict]
// return an error for everything that breaks the contract, and [Check] holds a verdict
// against the manifest. No unchecked answer leaves the package.
//
// It keeps no state and does no I/O. The plugin's half is in package sdk.
package wire
