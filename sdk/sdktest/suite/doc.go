// Package suite holds the executable of a plugin, written in any language, against the
// contract: it starts it as the gateway does, asks it everything that the gateway would ask,
// and says check by check what it thinks of the answers. [Run] is all of it; package sdktest
// wraps it for `go test`, and `postern plugin test` for the command line.
//
// It needs no gateway, no network and no rights. What it starts, it ends; what it writes is
// in a temporary folder, which is the plugin's data directory as well.
package suite
