// Command hostile is a plugin that does everything wrong, to show that the gateway does not
// mind. Its first argument says how it starts; without one it is a well-behaved filter and
// mailbox that misbehaves with single messages, as their X-Do field tells it (filter.go), and
// with "always WORD" with all of them.
// "raw" is a plugin written without the SDK, which answers what the SDK never would
// (raw.go). Everything that it eats or starts is bounded.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/postern-mail/postern/sdk"
)

func main() {
	how := ""
	if len(os.Args) > 1 {
		how = os.Args[1]
	}
	switch how {
	case "noise": // prints before the handshake, and is fine otherwise
		fmt.Println("starting up, please wait")
		fmt.Print("1 of 1 licences found\n")
		serve("")
	case "always":
		serve(strings.Join(os.Args[2:], " "))
	case "flood": // prints for ever, but never the handshake
		for {
			if _, err := fmt.Println(strings.Repeat("x", 1000)); err != nil {
				os.Exit(1)
			}
		}
	case "mute": // never says anything
		time.Sleep(10 * time.Minute)
	case "exit0": // is done before it began
	case "exit7":
		fmt.Fprintln(os.Stderr, "the licence has expired")
		os.Exit(7)
	case "version": // speaks a version of the protocol that nobody asked for
		fmt.Println("1|99|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/s|grpc")
		time.Sleep(10 * time.Minute)
	case "elsewhere": // sends the host to a socket of somebody else
		fmt.Println("1|1|unix|/run/docker.sock|grpc")
		time.Sleep(10 * time.Minute)
	case "owns": // what is not its own
		sdk.Serve(&plugin{}, sdk.Manifest{Name: "hostile", Version: "6.66", Needs: sdk.NeedBody, May: sdk.MayEditHeader, Owns: os.Args[2:]})
	case "raw":
		serveRaw(os.Args[2:])
	case "child":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		time.Sleep(10 * time.Minute)
	case "orphan": // the middle one of a double fork
		start(os.Args[2], true, os.Environ(), "child")
	default:
		serve("")
	}
}

func serve(always string) {
	may := sdk.MayReject
	if always == "rewrite" {
		may |= sdk.MayReplaceBody
	}
	sdk.Serve(&plugin{always: always}, sdk.Manifest{Name: "hostile", Version: "6.66", Needs: sdk.NeedBody, May: may})
}
