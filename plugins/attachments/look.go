package attachments

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// look is the look at one message: what is left of the limits, and what was found.
type look struct {
	ctx     context.Context
	cancel  context.CancelFunc
	p       *Plugin
	files   int   // seen
	bytes   int64 // unpacked
	memory  int64 // that archives and messages are held in
	view    view
	slot    bool
	found   []finding
	defects mime.Defect
	limit   string // the first limit that was exceeded, in words
}

// view is a reader of what is held in memory already.
type view struct {
	r    io.Reader
	held []byte
}

// maxMemory is how much of one message's archives is held in memory at a time, in bytes.
const maxMemory = 48 << 20

// maxFound is how many findings are kept of each severity; there is never more to do with others.
const maxFound = 1000

// finding is a file that a rule fits.
type finding struct {
	rule *rule
	path string // the file, behind the archives that it is in
	why  string
	part *mime.Part // of the message itself
}

func (f *finding) String() string { return fmt.Sprintf("%s (%s, %s)", f.path, f.rule.name, f.why) }

// file is something that rules may fit: a part, or what is in one.
type file struct {
	names    []string // in every reading, the usual first
	forms    []string // see forms
	path     string
	declared string
	types    []string
	depth    int
	part     *mime.Part
	shown    bool // it is the text of the message, which nobody opens
	inOffice bool // it is a piece of a document: its name does not matter
	judged   bool // the rules have been tried
}

// errLimit ends a look at a limit; what it was is in the look.
var errLimit = errors.New("limit exceeded")

func newLook(ctx context.Context, p *Plugin) *look {
	ctx, cancel := context.WithTimeout(ctx, p.set.MaxTime)
	return &look{ctx: ctx, cancel: cancel, p: p}
}

func (l *look) end() {
	l.cancel()
	if l.slot {
		<-l.p.slots
	}
}

func (l *look) exceeded(format string, args ...any) error {
	if l.limit == "" {
		l.limit = fmt.Sprintf(format, args...)
	}
	return errLimit
}

// inTime is an error when the time for this message is over.
func (l *look) inTime() error {
	if l.ctx.Err() != nil {
		return l.exceeded("more than %v", l.p.set.MaxTime)
	}
	return nil
}

// message looks at the parts of a message. The message itself is a part of another one, in
// the file outer, if that is given.
func (l *look) message(tree *mime.Tree, outer *file, depth int) error {
	l.defects |= tree.Defects
	if d := tree.Defects & mime.Incomplete; d != 0 {
		l.exceeded("%s", d)
	}
	for p := range tree.All {
		names, d := p.Names()
		l.defects |= d
		f := &file{names: names, declared: p.Type, depth: depth, part: p}
		f.shown = len(names) == 0 && strings.HasPrefix(p.Type, "text/") && p.Disposition != "attachment"
		if outer != nil {
			f.part, f.path = outer.part, outer.path+"/"
		}
		// A limit ends the look at this part; what holds for the whole message ends the
		// others as well, as soon as they begin.
		if err := l.part(tree, p, f); err != nil && err != errLimit {
			return err
		}
	}
	return nil
}

func (l *look) part(tree *mime.Tree, p *mime.Part, f *file) error {
	open := func() (io.ReadCloser, error) { return tree.Decoded(p) }
	switch {
	case p.Encoding != mime.Identity && (p.IsMessage() || p.IsMultipart()):
		return l.encoded(tree, p, f)
	case len(p.Children) > 0: // its parts come by themselves
		open = nil
	}
	return l.file(f, open)
}

// encoded looks into a message or multipart in base64 or quoted-printable, as those readers
// do who decode it.
func (l *look) encoded(tree *mime.Tree, p *mime.Part, f *file) error {
	if _, err := l.judge(f); err != nil {
		return err
	}
	c, err := tree.Decoded(p)
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := l.hold(c)
	if err != nil {
		return err
	}
	defer l.release(b)
	l.defects |= c.Defects()
	if p.IsMessage() {
		return l.embedded(f, b)
	}
	inner, err := mime.Walk(p.Header, mail.InlineBody(b), mime.Limits{})
	if err != nil {
		return err
	}
	for q := range inner.All {
		if q == inner.Root {
			continue
		}
		names, d := q.Names()
		l.defects |= d
		if err := l.part(inner, q, &file{names: names, declared: q.Type, depth: f.depth + 1, part: f.part, path: f.path}); err != nil {
			return err
		}
	}
	return nil
}

// embedded looks at a message in memory.
func (l *look) embedded(f *file, b []byte) error {
	if err := l.deeper(f); err != nil {
		return err
	}
	h, body := mail.SplitMessage(b)
	tree, err := mime.Walk(h, mail.InlineBody(body), mime.Limits{})
	if err != nil {
		return err
	}
	return l.message(tree, f, f.depth+1)
}

var heads = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, headSize) }}

// file looks at one file. Without open it has a name only. What open returns can be opened
// twice, for files whose beginning hides what they are.
func (l *look) file(f *file, open func() (io.ReadCloser, error)) error {
	if open == nil {
		_, err := l.judge(f)
		return err
	}
	kinds := []string{}
	if !f.shown {
		r, err := open()
		if err != nil {
			return err
		}
		found, err := hidden(r)
		kinds = append(kinds, found...)
		if c, ok := r.(*mime.Content); ok {
			l.defects |= c.Defects()
		}
		r.Close()
		if err != nil {
			return err
		}
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	err = l.content(f, r, kinds)
	if c, ok := r.(*mime.Content); ok && err == nil {
		l.defects |= c.Defects()
	}
	return err
}

// content looks at a file as it is read, and at the archives of other kinds that are hidden in
// it; nil if nobody has looked for them.
func (l *look) content(f *file, r io.Reader, kinds []string) error {
	br := heads.Get().(*bufio.Reader)
	br.Reset(r)
	defer func() { br.Reset(nil); heads.Put(br) }()
	head, err := br.Peek(headSize)
	if err != nil && err != io.EOF {
		return err
	}
	f.types = sniff(head)
	if f.shown {
		f.types = slices.DeleteFunc(f.types, func(t string) bool { return t == "script" || t == "shortcut" })
	}
	in := br
	if kinds == nil && len(f.views(head)) == 0 && f.namedArchive() { // what cannot be opened twice is held
		b, err := l.hold(br)
		if err != nil {
			return err
		}
		defer l.release(b)
		if kinds, err = hidden(bytes.NewReader(b)); err != nil {
			return err
		}
		in = bufio.NewReaderSize(bytes.NewReader(b), headSize)
		head, _ = in.Peek(headSize)
	}
	for _, kind := range kinds {
		if !f.is(kind) {
			f.types = append(f.types, kind)
			if kind == "disk-image" {
				f.types = append(f.types, "opaque")
			} else if !f.is("archive") && !f.is("ole") { // documents have others in them
				f.types = append(f.types, "archive")
			}
		}
	}
	if views := f.views(head); len(views) > 1 {
		return l.views(f, in, views)
	}
	return l.inside(f, in, head)
}

// namedArchive reports whether programs open a file as an archive by its name, whatever it begins
// with.
func (f *file) namedArchive() bool {
	return slices.ContainsFunc(f.names, func(n string) bool {
		n = trimEnd(strings.ToLower(n))
		return slices.ContainsFunc([]string{".zip", ".rar", ".vhd"}, func(e string) bool { return strings.HasSuffix(n, e) })
	})
}

// containers are the types of what is looked into, in the order in which one is chosen.
var containers = []string{"ole", "zip", "rar", "7z", "xz", "cab", "disk-image", "gzip", "bzip2", "zstd", "tar"}

// views are the types that a file has in the eyes of different programs: of those that go by
// its name, one opens what it begins with and another what is behind that.
func (f *file) views(head []byte) (views [][]string) {
	without := slices.DeleteFunc(slices.Clone(f.types), func(t string) bool { return slices.Contains(containers, t) })
	for _, c := range containers {
		if f.is(c) {
			views = append(views, append(slices.Clip(without), c))
		}
	}
	if len(views) > 0 && (f.shown || f.isMessage(head)) {
		views = append(views, without)
	}
	return views
}

// views looks at a file in each view. It is held in memory meanwhile.
func (l *look) views(f *file, r io.Reader, views [][]string) error {
	b, err := l.hold(r)
	if err != nil {
		return err
	}
	defer l.release(b)
	defer func(before view) { l.view = before }(l.view)
	var limit error
	for _, types := range views {
		seen := *f
		seen.types = slices.Clone(types)
		br := bufio.NewReaderSize(bytes.NewReader(b), headSize)
		head, _ := br.Peek(headSize)
		l.view = view{br, b}
		if err := l.inside(&seen, br, head); err == errLimit {
			limit = err
		} else if err != nil {
			return err
		}
	}
	f.judged = true
	return limit
}

// inside tries the rules for a file of known types, and looks at what is in it.
func (l *look) inside(f *file, br *bufio.Reader, head []byte) error {
	read := l.directory(f, head)
	switch {
	case f.is("ole"):
		if err := markOLE(f, br); err != nil {
			return err
		}
	case f.is("zip"):
		return l.zip(f, br)
	case read != nil:
		return l.held(f, br, read)
	}
	stop, err := l.judge(f)
	if stop || err != nil {
		return err
	}
	switch {
	case f.is("gzip"):
		return l.gunzip(f, br)
	case f.is("bzip2"):
		return l.bunzip2(f, br)
	case f.is("zstd"):
		return l.unzstd(f, br)
	case f.is("tar"):
		return l.tar(f, br)
	case f.shown:
		return l.uuencoded(f, br)
	case f.isMessage(head):
		b, err := l.hold(br)
		if err != nil {
			return err
		}
		defer l.release(b)
		return l.embedded(f, b)
	}
	return nil
}

func (f *file) is(t string) bool { return slices.Contains(f.types, t) }

// isMessage reports whether a file by its name is a message that mail programs open.
func (f *file) isMessage(head []byte) bool {
	return slices.ContainsFunc(f.names, func(n string) bool { return strings.HasSuffix(strings.ToLower(n), ".eml") }) &&
		mail.IsField(head)
}

// judge tries the rules. stop says that nothing in the file matters any more.
func (l *look) judge(f *file) (stop bool, err error) {
	if l.files++; l.files > l.p.set.MaxFiles {
		return true, l.exceeded("more than %d files", l.p.set.MaxFiles)
	}
	if err := l.inTime(); err != nil {
		return true, err
	}
	f.judged = true
	f.forms = forms(f.names)
	if disguised(f.names) {
		f.types = append(f.types, "disguised")
	}
	if f.inOffice {
		f.forms = nil
	}
	name := f.declared
	if len(f.names) > 0 {
		name = f.names[0]
	}
	f.path = printable(f.path+name, 200)
	for i := range l.p.rules {
		r := &l.p.rules[i]
		why, ok := r.fits(f)
		if !ok {
			continue
		}
		if r.action == accept {
			return true, nil
		}
		if len(l.found) < maxFound || r.action > l.worst().rule.action {
			l.found = append(l.found, finding{rule: r, path: f.path, why: why, part: f.part})
		}
		return r.action == reject, nil
	}
	return false, nil
}

// worst is the first finding of the greatest severity; nil if there is none.
func (l *look) worst() *finding {
	var w *finding
	for i := range l.found {
		if f := &l.found[i]; w == nil || f.rule.action > w.rule.action {
			w = f
		}
	}
	return w
}

// deeper is an error when what is in the file would be too deep.
func (l *look) deeper(f *file) error {
	if f.depth+1 > l.p.set.MaxDepth {
		return l.exceeded("archives nested more than %d deep", l.p.set.MaxDepth)
	}
	return nil
}

// hold reads all into memory, of which each message has so much.
func (l *look) hold(r io.Reader) ([]byte, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	if l.view.r != nil && r == l.view.r {
		return l.view.held, nil
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, maxMemory-l.memory+1)); err != nil {
		return nil, err
	}
	if int64(b.Len()) > maxMemory-l.memory {
		return nil, l.tooLarge()
	}
	l.memory += int64(b.Len())
	return b.Bytes(), nil
}

func (l *look) tooLarge() error {
	return l.exceeded("archives of more than %d MiB", maxMemory>>20)
}

// begin waits until this message may take memory.
func (l *look) begin() error {
	if l.slot {
		return nil
	}
	select {
	case l.p.slots <- struct{}{}:
		l.slot = true
		return nil
	case <-l.ctx.Done():
		return l.inTime()
	}
}

func (l *look) release(b []byte) {
	if v := l.view.held; len(b) == 0 || len(v) == 0 || &b[0] != &v[0] {
		l.memory -= int64(len(b))
	}
}

// note leaves what was found for later plugins and the trace.
func (l *look) note(v *sdk.Verdict) {
	if len(l.found) > 0 {
		var list []string
		for i := range l.found {
			list = append(list, l.found[i].String())
		}
		v.Note("found", printable(strings.Join(list, "; "), 1000))
	}
	if l.limit != "" {
		v.Note("limit", printable(l.limit, 200))
	}
	if d := l.defects & mime.Ambiguous; d != 0 {
		v.Note("ambiguous", d.String())
	}
}
