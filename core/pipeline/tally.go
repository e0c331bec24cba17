package pipeline

import "sync"

// Tally counts by plugin how often it gave no verdict, and what its failure policy made of
// that. It is safe for concurrent use; a reload hands it on. The zero value is ready.
type Tally struct {
	mu      sync.Mutex
	plugins map[string]NoVerdict
}

// NoVerdict is how often a plugin gave no verdict.
type NoVerdict struct {
	Messages  Choices // each version of a message, each time it was asked about
	Questions Choices // of sessions, to gates
}

// Choices is how often each choice of a failure policy was made.
type Choices struct {
	Unscanned int64 // went on, marked as unscanned
	Deferred  int64
	Rejected  int64
	Parked    int64 // of questions: went on, for the plugin is a filter that will see the message
}

// Of returns what was counted of a plugin.
func (t *Tally) Of(plugin string) NoVerdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.plugins[plugin]
}

func (t *Tally) message(plugin string, c OnFailure) {
	t.count(plugin, func(n *NoVerdict) { n.Messages.add(c) })
}

func (t *Tally) question(plugin string, c OnFailure) {
	t.count(plugin, func(n *NoVerdict) { n.Questions.add(c) })
}

func (t *Tally) count(plugin string, add func(*NoVerdict)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plugins == nil {
		t.plugins = make(map[string]NoVerdict)
	}
	n := t.plugins[plugin]
	add(&n)
	t.plugins[plugin] = n
}

func (c *Choices) add(choice OnFailure) {
	switch choice {
	case FailAccept:
		c.Unscanned++
	case FailReject:
		c.Rejected++
	case FailPark:
		c.Parked++
	default:
		c.Deferred++
	}
}
