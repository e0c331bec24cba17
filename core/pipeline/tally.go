package pipeline

import "sync"

// Tally counts by plugin what became of mail because of it, and what its failure policy made
// of it where it gave no verdict. It is safe for concurrent use; a reload hands it on. The zero
// value is ready.
type Tally struct {
	mu      sync.Mutex
	plugins map[string]Counts
}

// Counts is what was counted of one plugin. Messages are versions of messages, each time one
// was asked about.
type Counts struct {
	Verdicts  Verdicts // on messages, those that were not to go on
	NoVerdict Choices  // on messages
	NoAnswer  Choices  // to questions of sessions, of a gate
}

// Verdicts is how often a plugin stopped a message, for some of its recipients or for all.
type Verdicts struct{ Rejected, Deferred, Discarded, Quarantined int64 }

// Choices is how often each choice of a failure policy was made.
type Choices struct {
	Unscanned int64 // went on, marked as unscanned
	Deferred  int64
	Rejected  int64
	Parked    int64 // of questions: went on, for the plugin is a filter that will see the message
}

// Of returns what was counted of a plugin.
func (t *Tally) Of(plugin string) Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.plugins[plugin]
}

func (t *Tally) noVerdict(plugin string, c OnFailure) {
	t.count(plugin, func(n *Counts) { n.NoVerdict.add(c) })
}

func (t *Tally) noAnswer(plugin string, c OnFailure) {
	t.count(plugin, func(n *Counts) { n.NoAnswer.add(c) })
}

// verdict counts what a plugin made of a version.
func (t *Tally) verdict(plugin string, before Version, after []Version) {
	for _, v := range after {
		if v.Disposition != before.Disposition {
			t.count(plugin, func(n *Counts) { n.Verdicts.add(v.Disposition) })
		}
	}
}

func (t *Tally) count(plugin string, add func(*Counts)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plugins == nil {
		t.plugins = make(map[string]Counts)
	}
	n := t.plugins[plugin]
	add(&n)
	t.plugins[plugin] = n
}

func (c *Verdicts) add(d Disposition) {
	switch d {
	case Reject:
		c.Rejected++
	case Defer:
		c.Deferred++
	case Discard:
		c.Discarded++
	case Quarantine:
		c.Quarantined++
	}
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
