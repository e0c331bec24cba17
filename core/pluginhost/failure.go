package pluginhost

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-mail/postern/core/pluginhost/pluginlog"
	"github.com/postern-mail/postern/sdk/proto"
)

// The reasons of a [Failure], as they are named in the configuration (on_failure).
const (
	Down    = "down"    // the plugin is not there, or went away during the call
	Timeout = "timeout" // it did not answer in time
	Error   = "error"   // it said that it failed, panicked, or broke the contract
	// Convicted says that the plugin died of this message twice, the second time alone in a
	// process of its own; see suspects.go. It is not for on_failure: asking again kills again.
	Convicted = "convicted"
)

// Failure says that a plugin gave no answer. It is no statement about the message.
type Failure struct {
	Plugin string
	Err    error
	// Stack is the stack trace of a panic, or what the process said before it died; empty
	// if nothing is known.
	Stack string

	reason  string
	died    bool // the process ended by itself during the call
	garbage bool // the answer broke the protocol
}

// Error is for the log.
func (f *Failure) Error() string {
	return fmt.Sprintf("plugin %s: %s: %v", f.Plugin, f.reason, f.Err)
}

// Unwrap returns what went wrong.
func (f *Failure) Unwrap() error { return f.Err }

// Reason is [Down], [Timeout], [Error] or [Convicted].
func (f *Failure) Reason() string { return f.reason }

// StackTrace is Stack, for those who do not import this package.
func (f *Failure) StackTrace() string { return f.Stack }

func fail(plugin, reason string, err error) *Failure {
	return &Failure{Plugin: plugin, Err: err, reason: reason}
}

// garbage is the failure of a plugin that answered against the protocol.
func garbage(plugin string, err error) *Failure {
	return &Failure{Plugin: plugin, Err: err, reason: Error, garbage: true}
}

// ownFault is what went wrong on the gateway's side: no fault of the plugin, so that
// nothing that is configured about the plugin's faults applies.
type ownFault struct{ err error }

func (o *ownFault) Error() string { return "pluginhost: " + o.err.Error() }
func (o *ownFault) Unwrap() error { return o.err }

// Reason is "gateway".
func (o *ownFault) Reason() string { return "gateway" }

var (
	errDown    = errors.New("it is not running")
	errUnknown = errors.New("it is not configured")
)

// connClosing is what gRPC says of calls on a connection that we have closed, as is done when the process has ended:
// it may be known before the end itself.
const connClosing = "grpc: the client connection is closing"

// classify makes a failure of a gRPC error. When the caller gave up, that is no failure of
// the plugin, and the caller's own error is returned.
func classify(caller context.Context, plugin string, dead bool, err error) error {
	if errors.Is(caller.Err(), context.Canceled) {
		return fmt.Errorf("plugin %s: %w", plugin, context.Cause(caller))
	}
	st := status.Convert(err)
	text := errors.New(pluginlog.Printable(st.Message()))
	switch code := st.Code(); {
	case dead || code == codes.Unavailable || code == codes.Canceled && st.Message() == connClosing:
		return fail(plugin, Down, errors.New("it died during the call"))
	case code == codes.DeadlineExceeded:
		return fail(plugin, Timeout, errors.New("no answer before the deadline"))
	case code == codes.ResourceExhausted:
		return garbage(plugin, fmt.Errorf("a message is too large: %w", text))
	case code == codes.Unimplemented:
		return garbage(plugin, fmt.Errorf("it does not serve this call: %w", text))
	}
	f := fail(plugin, Error, text)
	for _, d := range st.Details() {
		if pf, ok := d.(*proto.Failure); ok {
			f.Stack = pf.GetStack()
		}
	}
	return f
}
