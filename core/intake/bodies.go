package intake

import (
	"io"

	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/sdk/mail"
)

// bodies are what plugins wrote in one run in the place of a body, and nothing refers to
// yet. They are made durable before the commit that names them, and go when there is none.
type bodies struct {
	spool *spool.Spool
	kept  map[string]*spool.Writer // by path; small ones are in memory and need no care
}

// For is what the pipeline is given.
func (b *bodies) For(rules *Rules) *pipeline.Bodies {
	return &pipeline.Bodies{Max: rules.BodySize, Keep: b.keep}
}

// Drafts are the bodies that a planner wrote for one plan.
type Drafts struct {
	bodies   bodies
	max      int64
	eightBit bool
}

// Drafts begins to take the bodies of a plan. The caller calls End.
func (in *Intake) Drafts() *Drafts {
	return &Drafts{bodies: bodies{spool: in.Spool}, max: in.rules.Load().BodySize + planGrowth}
}

// planGrowth is by how much a message may become larger than one that comes in, in bytes: a
// script can put it into another one.
const planGrowth = 2 << 20

// Max is how large a body may be, in bytes.
func (d *Drafts) Max() int64 { return d.max }

// Keep stores a body.
func (d *Drafts) Keep(r io.Reader) (mail.Body, error) {
	w := &eightBitReader{r: r}
	body, err := d.bodies.keep(w)
	d.eightBit = d.eightBit || w.found
	return body, err
}

// EightBit reports whether a body has bytes that are not ASCII.
func (d *Drafts) EightBit() bool { return d.eightBit }

// Sync makes the bodies durable that are named by what is to be added, and forgets the others.
func (d *Drafts) Sync(adds []queue.Add) error { return d.bodies.sync(queue.Batch{Add: adds}) }

// End says whether what named the bodies was committed. Without that nothing is kept.
func (d *Drafts) End(committed bool) { d.bodies.end(committed) }

// eightBitReader notices what is not ASCII.
type eightBitReader struct {
	r     io.Reader
	found bool
}

func (e *eightBitReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.found = e.found || !isASCII(p[:n])
	return n, err
}

// keep stores one body.
func (b *bodies) keep(r io.Reader) (mail.Body, error) {
	if err := b.spool.Space(); err != nil {
		return mail.Body{}, err
	}
	w := b.spool.NewWriter()
	if _, err := copyBuffered(w, r); err != nil {
		w.Abort()
		return mail.Body{}, err
	}
	body, err := w.Finish()
	if err != nil {
		w.Abort()
		return mail.Body{}, err
	}
	if body.Path != "" {
		if b.kept == nil {
			b.kept = make(map[string]*spool.Writer)
		}
		b.kept[body.Path] = w
	}
	return body, nil
}

// sync makes those durable that the batch names, and removes the others.
func (b *bodies) sync(batch queue.Batch) error {
	for path, w := range b.kept {
		if !names(batch, path) {
			w.Abort()
			delete(b.kept, path)
		} else if err := w.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// end says whether the commit took place. Without it nothing is kept.
func (b *bodies) end(committed bool) {
	for path, w := range b.kept {
		if !committed {
			w.Abort()
		}
		delete(b.kept, path)
	}
}

// names reports whether an entry of the batch has its body in that file.
func names(batch queue.Batch, path string) bool {
	for _, a := range batch.Add {
		if path != "" && a.Entry.Body.Path == path {
			return true
		}
	}
	return false
}
