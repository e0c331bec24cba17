package pipeline

import (
	"errors"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// Convicted is the reason of a failure that the message itself is to blame for: the plugin
// died of it twice, the second time alone. No policy can let such a message pass, and
// trying again would kill again, so it is accepted and held for a person to look at, with
// the stack.
const Convicted Reason = "convicted"

const (
	// convictionsPerHour is how many messages of one client a plugin may have convicted in an
	// hour. A client beyond that is told to come later, and the plugin is not shown its mail
	// meanwhile: it can neither fill the queue with held mail nor keep a plugin dying.
	convictionsPerHour = 20
	convictionWindow   = time.Hour
	maxOffenders       = 10_000  // clients and plugins that are counted at a time
	maxConvictedStack  = 8 << 10 // bytes
)

// Convictions counts convicted messages by client and plugin, those of deliveries too. It is safe for concurrent use; a reload
// hands it on. The zero value is ready.
type Convictions struct {
	mu        sync.Mutex
	offenders map[offender]offence
}

type offender struct {
	client netip.Addr // the zero value for mail that no client brought
	plugin string
}

type offence struct {
	since time.Time
	n     int
}

// Add counts a message of the client that the plugin died of, and reports whether it may be
// held: else the client has had its share.
func (c *Convictions) Add(plugin string, client mail.Client, now time.Time) bool {
	o := offender{state.ClientKey(client.Addr), plugin}
	c.mu.Lock()
	defer c.mu.Unlock()
	f, known := c.offenders[o]
	if now.Sub(f.since) >= convictionWindow {
		f = offence{since: now}
	}
	if !known && len(c.offenders) >= maxOffenders {
		maps.DeleteFunc(c.offenders, func(_ offender, f offence) bool { return now.Sub(f.since) >= convictionWindow })
		if len(c.offenders) >= maxOffenders {
			return false
		}
	}
	if f.n >= convictionsPerHour {
		return false
	}
	f.n++
	if c.offenders == nil {
		c.offenders = make(map[offender]offence)
	}
	c.offenders[o] = f
	return true
}

// Barred reports whether the client has had its share: the plugin is not to be shown its mail.
func (c *Convictions) Barred(plugin string, client mail.Client, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.offenders) == 0 {
		return false
	}
	f, ok := c.offenders[offender{state.ClientKey(client.Addr), plugin}]
	return ok && f.n >= convictionsPerHour && now.Sub(f.since) < convictionWindow
}

// NotShown is the reason for which mail of a barred client waits.
func NotShown(plugin string) string {
	return "not shown to plugin " + plugin + ": it died of too many messages of this client"
}

// refuse puts a message off because of what its client sent before.
func (s *Step) refuse(v Version, event *trace.Event) Version {
	v.Disposition, v.Status = Defer, mail.Temporary(451, 3, 0, "Message cannot be checked now, try again later")
	v.Reason = NotShown(s.Name)
	event.Reason = v.Reason
	return v
}

// convict holds a message that a plugin died of.
func (p *Pipeline) convict(s *Step, v Version, client mail.Client, err error, event *trace.Event) Version {
	event.Action = "convicted"
	if !p.Convictions.Add(s.Name, client, p.Clock()) {
		return s.refuse(v, event)
	}
	v.Disposition, v.Reason = Convict, "convicted: plugin "+s.Name+" died twice on this message"
	event.Reason = err.Error()
	v.Run.Notes = with(v.Run.Notes, queue.StackNote, stackOf(err))
	return v
}

// Stack returns what a plugin said before it died of a message, where err says that it was
// convicted of that; else false.
func Stack(err error) (string, bool) {
	if err == nil || reasonOf(err) != Convicted {
		return "", false
	}
	return stackOf(err), true
}

func stackOf(err error) string {
	var f interface{ StackTrace() string }
	stack := ""
	if errors.As(err, &f) {
		stack = f.StackTrace()
	}
	if len(stack) > maxConvictedStack {
		stack = stack[:maxConvictedStack]
	}
	if stack == "" {
		return err.Error()
	}
	return stack
}

// acquitted is a run without what an earlier conviction or quarantine left in it.
func acquitted(run queue.Run) queue.Run {
	for _, name := range []string{queue.StackNote, queue.QuarantineNote} {
		if _, ok := run.Notes[name]; ok {
			run.Notes = maps.Clone(run.Notes)
			delete(run.Notes, name)
		}
	}
	return run
}
