package pipeline

import "github.com/postern-mail/postern/sdk"

// Witness sees what plugins make of a message, for who has to explain it. Its methods are
// called by the goroutine of the run, in the order of what happens; they must not change
// what they are shown.
type Witness interface {
	// Asked is called after each plugin that was asked about a version.
	Asked(a Answer)
	// Ended is called with what the run returns.
	Ended(versions []Version)
}

// Answer is what one plugin made of one version.
type Answer struct {
	Plugin  string
	Before  Version
	After   []Version
	Verdict *sdk.Verdict // nil: there was none
	Err     error        // why there was none
	Millis  float64
}

// testify tells the witness, if there is one, what became of v.
func (p *Pipeline) testify(plugin string, v Version, verdict *sdk.Verdict, err error, millis float64, after []Version) {
	if p.Witness == nil {
		return
	}
	if err != nil {
		verdict = nil
	}
	p.Witness.Asked(Answer{Plugin: plugin, Before: v, After: after, Verdict: verdict, Err: err, Millis: millis})
}
