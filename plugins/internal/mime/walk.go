package mime

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"sync"

	"github.com/postern-mail/postern/sdk/mail"
)

// Walk finds the parts of a message. Errors are those of reading its body, which is read
// to the end.
func Walk(header mail.Header, body mail.Body, limits Limits) (*Tree, error) {
	r, err := body.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	root := &Part{Header: header, follows: body.Size}
	w := &walker{tree: &Tree{Root: root, Parts: 1, body: body}, limits: limits.withDefaults(), marks: make(map[string]int)}
	// A body without any header before it is one: what relays it puts fields and a blank line
	// before it.
	if len(header.Block()) > 0 && !header.Separated() && body.Size > 0 {
		w.flag(root, NoBlankLine)
	}
	w.push(root)
	w.beginBody(root, 0)
	if err := w.read(r); err != nil {
		return nil, err
	}
	w.popTo(0, w.off, w.off)
	return w.tree, nil
}

// walker is the state of a walk: the parts that are open, from the root to the innermost.
type walker struct {
	tree   *Tree
	limits Limits
	open   []frame
	marks  map[string]int // boundary -> the innermost open part that has it
	off    int64          // of the line that is being read
	eol    int64          // length of the line end before it
	header []byte         // of the innermost part, while that is being read
	kept   int            // bytes of all headers
}

type frame struct {
	part     *Part
	inHeader bool
	torn     bool // its header ends with the part
	closed   bool // its last boundary has come
	outer    int  // the part with the same boundary further out, -1 if there is none
}

const lineBuffer = 64 << 10

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, lineBuffer) }}

// read takes the body line by line. A line longer than the buffer comes in pieces, of which
// only the first can be a boundary.
func (w *walker) read(r io.Reader) error {
	br := readers.Get().(*bufio.Reader)
	br.Reset(r)
	defer func() { br.Reset(nil); readers.Put(br) }()
	first := true
	for {
		b, err := br.ReadSlice('\n')
		if len(b) > 0 {
			w.tree.work += int64(len(b))
			whole := err != bufio.ErrBufferFull
			w.line(b, first, whole)
			w.off += int64(len(b))
			w.eol = int64(len(b) - len(trimEOL(b)))
			first = whole
		}
		if err == io.EOF {
			return nil
		}
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
	}
}

func trimEOL(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// line takes one line, or one piece of it.
func (w *walker) line(b []byte, first, whole bool) {
	if first && len(b) > 2 && b[0] == '-' && b[1] == '-' && w.delimiter(b[2:], whole) {
		return
	}
	// Each time a header ends before this line another part is innermost.
	for w.open[len(w.open)-1].inHeader {
		w.tree.work++
		if w.headerLine(b, first) {
			return
		}
	}
}

// delimiter looks whether a line, without its two hyphens, is a boundary of an open part,
// and if so carries it out.
func (w *walker) delimiter(line []byte, whole bool) bool {
	if len(w.marks) == 0 {
		return false
	}
	b := bytes.TrimRight(line, " \t\r\n") // RFC 2046 §5.1.1: transport padding
	i, ok := w.marks[string(b)]
	last := false
	if !ok {
		if bytes.HasSuffix(b, []byte("--")) {
			i, last = w.marks[string(b[:len(b)-2])]
			ok = last
		}
	}
	if !ok || !whole {
		w.near(b)
		return false
	}
	w.popTo(i+1, w.off-w.eol, w.off)
	f := &w.open[i]
	switch {
	case last:
		f.closed = true
	default:
		if f.closed {
			w.flag(f.part, AfterClose)
		}
		child := "text/plain"
		if f.part.Type == "multipart/digest" {
			child = "message/rfc822" // RFC 2046 §5.1.5
		}
		if p := w.begin(f.part, w.off+2+int64(len(line)), child); p != nil {
			p.glued = len(trimEOL(line)) == len(line)
		}
	}
	return true
}

// near notes a line that begins with a boundary and goes on: RFC 2046 §5.1.1 lets readers
// take it for one.
func (w *walker) near(line []byte) {
	if w.tree.Defects&NearBoundary != 0 {
		return // once is enough, and bounds the work
	}
	for _, f := range w.open {
		w.tree.work += int64(min(len(f.part.Boundary), len(line)))
		if f.part.Boundary != "" && len(line) >= len(f.part.Boundary) && string(line[:len(f.part.Boundary)]) == f.part.Boundary {
			w.flag(f.part, NearBoundary)
			return
		}
	}
}

// begin opens a part whose header begins at an offset; nil if that is one too many.
func (w *walker) begin(parent *Part, at int64, def string) *Part {
	if w.tree.Parts >= w.limits.Parts {
		w.flag(parent, TooMany)
		return nil
	}
	p := &Part{Parent: parent, Depth: parent.Depth + 1, HeaderStart: at, BodyStart: at, End: at, Type: def}
	parent.Children = append(parent.Children, p)
	w.tree.Parts++
	w.push(p)
	w.open[len(w.open)-1].inHeader = true
	w.header = w.header[:0]
	return p
}

func (w *walker) push(p *Part) { w.open = append(w.open, frame{part: p, outer: -1}) }

// headerLine takes a line in a header. It reports whether the line belonged to it.
func (w *walker) headerLine(b []byte, first bool) bool {
	p := w.open[len(w.open)-1].part
	switch {
	case !first: // the rest of a line
	case len(trimEOL(b)) == 0:
		w.keep(p, b)
		w.beginBody(p, w.off+int64(len(b)))
		return true
	case mail.IsField(b):
	case (b[0] == ' ' || b[0] == '\t') && w.off > p.HeaderStart:
	default:
		w.flag(p, NoBlankLine)
		w.beginBody(p, w.off)
		return false
	}
	w.keep(p, b)
	return true
}

func (w *walker) keep(p *Part, b []byte) {
	if len(w.header)+len(b) > w.limits.Header || w.kept+len(b) > w.limits.Headers {
		w.flag(p, HeaderTooLarge)
		return
	}
	w.header = append(w.header, b...)
	w.kept += len(b)
}

// beginBody ends the header of the innermost part and looks at what it says.
func (w *walker) beginBody(p *Part, at int64) {
	f := &w.open[len(w.open)-1]
	if f.inHeader {
		p.Header = mail.NewHeader(bytes.Clone(w.header))
	}
	f.inHeader = false
	p.BodyStart = at
	w.flag(p, p.describe())
	switch {
	case !p.IsMultipart() && !p.IsMessage():
	case p.Depth >= w.limits.Depth:
		w.flag(p, TooDeep)
	case p.IsMessage() && f.torn: // where a message would begin, the header goes on
	case p.IsMessage():
		w.begin(p, at, "text/plain")
	case len(p.Boundary) > w.limits.Boundary:
		w.flag(p, LongBoundary)
	case p.Boundary == "":
		w.flag(p, NoBoundary)
	default:
		if i, ok := w.marks[p.Boundary]; ok {
			w.flag(p, DuplicateBoundary)
			f.outer = i
		}
		w.marks[p.Boundary] = len(w.open) - 1
	}
}

// popTo ends all parts but the n outermost, at an offset; the line that ends them begins at
// follows.
func (w *walker) popTo(n int, at, follows int64) {
	for len(w.open) > n {
		w.tree.work++
		f := &w.open[len(w.open)-1]
		p := f.part
		if f.inHeader { // the header ends without a blank line
			f.torn = true
			w.beginBody(p, max(at, p.HeaderStart))
			continue
		}
		p.End, p.follows = max(at, p.BodyStart), follows
		if i, ok := w.marks[p.Boundary]; ok && i == len(w.open)-1 {
			delete(w.marks, p.Boundary)
			if f.outer >= 0 {
				w.marks[p.Boundary] = f.outer
			}
			if len(p.Children) == 0 && p.Size() > 0 {
				w.flag(p, NoBoundary)
			}
		}
		w.open = w.open[:len(w.open)-1]
	}
}

func (w *walker) flag(p *Part, d Defect) {
	p.Defects |= d
	w.tree.Defects |= d
}

// describe reads the fields that say what the part is.
func (p *Part) describe() Defect {
	def := p.Type
	if def == "" {
		def = "text/plain"
	}
	f, d := contentFields(p.Header)
	d |= p.describeType(def, f.types)
	if len(f.dispositions) > 0 {
		p.Disposition = strings.ToLower(parseField(f.dispositions[0]).Value)
	}
	for i, v := range f.encodings {
		enc, odd := parseEncoding(v)
		if i == 0 {
			p.Encoding = enc
		}
		d |= odd
	}
	if p.IsMultipart() && p.Encoding != Identity {
		d |= EncodedContainer // RFC 2045 §6.4 forbids it
	}
	return d
}

// describeType reads the media type.
func (p *Part) describeType(def string, values []string) (d Defect) {
	p.Type = def
	if len(values) == 0 {
		return 0
	}
	f := parseField(values[0])
	p.Params = f
	t := strings.ToLower(f.Value)
	if main, sub, ok := strings.Cut(t, "/"); ok && isToken(main) && isToken(sub) {
		p.Type = t
	} else if low := strings.ToLower(values[0]); strings.Contains(low, "multipart") || strings.Contains(low, "boundary") || strings.Contains(low, "rfc822") {
		d |= MalformedField
	}
	if f.odd {
		d |= MalformedField
	}
	if p.IsMultipart() {
		b, odd := f.boundary()
		p.Boundary = b
		d |= odd
	}
	return d
}

// fields are the values of the fields that say what a part is.
type fields struct{ types, dispositions, encodings []string }

// contentFields finds them. It is a defect if values of one field differ, or if a field is
// not written as one.
func contentFields(h mail.Header) (f fields, d Defect) {
	for _, field := range h.Fields {
		var list *[]string
		switch {
		case len(field.Name) < len("Content-Type") || field.Name[0]|0x20 != 'c':
			continue
		case strings.EqualFold(field.Name, "Content-Type"):
			list = &f.types
		case strings.EqualFold(field.Name, "Content-Disposition"):
			list = &f.dispositions
		case strings.EqualFold(field.Name, "Content-Transfer-Encoding"):
			list = &f.encodings
		default:
			continue
		}
		if len(*list) == maxFields {
			d |= DuplicateField
			continue
		}
		v := field.Value()
		if field.Raw()[len(field.Name)] != ':' { // RFC 5322 §4.5: obsolete, and read by some
			d |= MalformedField
		}
		if len(v) > maxValue {
			v, d = v[:maxValue], d|HeaderTooLarge
		}
		if len(*list) > 0 && (*list)[0] != v {
			d |= DuplicateField
		}
		*list = append(*list, v)
	}
	return f, d
}

// parseEncoding reads Content-Transfer-Encoding.
func parseEncoding(v string) (Encoding, Defect) {
	switch t := strings.ToLower(v); {
	case t == "base64":
		return Base64, 0
	case t == "quoted-printable":
		return QuotedPrintable, 0
	case strings.Contains(t, "base64"): // with a comment, in quotes, after other words
		return Base64, OddEncoding
	case strings.Contains(t, "quoted") || strings.Contains(t, "printable"):
		return QuotedPrintable, OddEncoding
	case strings.Contains(t, "uue") || strings.Contains(t, "binhex") || strings.Contains(t, "yenc"):
		return Identity, OddEncoding
	}
	return Identity, 0
}
