package mime

import (
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Limits bound a walk. A zero field stands for its default.
type Limits struct {
	Depth    int // of nested containers; default 100
	Parts    int // of the whole message, the root included; default 10,000
	Header   int // bytes of one part's header that are kept; default 64 KiB (the root's is not cut)
	Headers  int // bytes of all parts' headers that are kept; default 4 MiB
	Boundary int // octets of a boundary; default 2048 (RFC 2046 §5.1.1 allows 70)
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		v   *int
		def int
	}{{&l.Depth, 100}, {&l.Parts, 10_000}, {&l.Header, 64 << 10}, {&l.Headers, 4 << 20}, {&l.Boundary, 2048}} {
		if *f.v <= 0 {
			*f.v = f.def
		}
	}
	return l
}

// Defect is a set of reasons why a message is not simply what it seems.
type Defect uint32

// The defects. Of the first group the walk did not see everything. With the others, readers
// of mail come to different results.
const (
	TooDeep        Defect = 1 << iota // containers beyond the limit were not opened
	TooMany                           // parts beyond the limit were not counted
	HeaderTooLarge                    // not all of a header was kept
	LongBoundary                      // a boundary is longer than the limit

	DuplicateField    // a Content- field is there twice, with different values
	MalformedField    // a Content- field that matters cannot be parsed with certainty
	DuplicateBoundary // several boundaries, or one that an outer part has too
	NoBoundary        // a multipart without a boundary, or whose boundary never comes
	NearBoundary      // a line begins like a boundary, and goes on
	AfterClose        // parts after the one that was announced as the last
	NoBlankLine       // a line that is no field where a header should have ended
	EncodedContainer  // a multipart in base64 or quoted-printable
	OddEncoding       // a transfer encoding that is almost a known one, or is one that few know
	OddName           // a name with too many or unknown forms
	OddContent        // the content goes on after its end, or does not fit the encoding
)

// Incomplete are the defects that hide something from the walk.
const Incomplete = TooDeep | TooMany | HeaderTooLarge | LongBoundary

// Ambiguous are the defects with which readers come to different results.
const Ambiguous = DuplicateField | MalformedField | DuplicateBoundary | NoBoundary | NearBoundary | AfterClose |
	NoBlankLine | EncodedContainer | OddEncoding | OddName | OddContent

// String lists the reasons in plain words, separated by commas.
func (d Defect) String() string {
	words := [...]string{"nested too deep", "too many parts", "header too large", "boundary too long",
		"duplicate content field", "malformed content field", "duplicate boundary", "boundary missing",
		"line almost a boundary", "part after the last", "blank line missing", "encoded multipart",
		"odd transfer encoding", "odd name", "odd content"}
	var list []string
	for i, w := range words {
		if d&(1<<i) != 0 {
			list = append(list, w)
		}
	}
	return strings.Join(list, ", ")
}

// Encoding is a transfer encoding (RFC 2045 §6).
type Encoding uint8

// The encodings. What is not known is read as it stands.
const (
	Identity Encoding = iota // 7bit, 8bit, binary and all others
	Base64
	QuotedPrintable
)

// Part is a message, a part of a multipart, or the message in a message/rfc822 part.
type Part struct {
	// Parent is nil for the root. Children are the parts of a multipart, or the one message
	// of a message/rfc822.
	Parent   *Part
	Children []*Part
	// Header is the header as it stands, with the blank line if there is one.
	Header mail.Header
	// The header is HeaderStart to BodyStart and the body BodyStart to End, in bytes of the
	// message's body. The line end before a boundary belongs to the boundary
	// (RFC 2046 §5.1.1).
	HeaderStart, BodyStart, End int64
	// Depth is the number of parts around this one.
	Depth int
	// Type is the media type in lower case, "text/plain" where nothing (valid) is said;
	// Params are its parameters.
	Type   string
	Params Field
	// Disposition is "attachment", "inline", another word in lower case, or "".
	Disposition string
	Encoding    Encoding
	// Boundary is what separates the parts of a multipart.
	Boundary string
	// Defects of this part alone.
	Defects Defect

	glued   bool  // the boundary line before it is the last and has no line end
	follows int64 // where the boundary line that ends the part begins, or the end of the body
}

// IsMultipart reports whether the type is multipart.
func (p *Part) IsMultipart() bool { return strings.HasPrefix(p.Type, "multipart/") }

// IsMessage reports whether the content is a message (RFC 2046 §5.2.1, RFC 6532 §3.7).
func (p *Part) IsMessage() bool {
	return p.Type == "message/rfc822" || p.Type == "message/global" || p.Type == "message/news"
}

// Size is the length of the body as it stands, in bytes.
func (p *Part) Size() int64 { return p.End - p.BodyStart }

// Charset is the parameter in lower case, "" where it is not there.
func (p *Part) Charset() string { return strings.ToLower(p.Params.Get("charset")) }

// Tree is the structure of a message.
type Tree struct {
	Root  *Part
	Parts int // how many there are
	// Defects are those of all parts.
	Defects Defect

	body mail.Body
	work int64 // steps that the walk took, for tests
}

// All iterates over the parts in the order of the message, each before its children.
func (t *Tree) All(yield func(*Part) bool) {
	p := t.Root
	for next := []*Part{}; p != nil; {
		if !yield(p) {
			return
		}
		for i := len(p.Children) - 1; i >= 0; i-- {
			next = append(next, p.Children[i])
		}
		if p = nil; len(next) > 0 {
			p, next = next[len(next)-1], next[:len(next)-1]
		}
	}
}
