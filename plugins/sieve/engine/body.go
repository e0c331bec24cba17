package engine

import (
	"bytes"
	"io"
	"strings"

	"golang.org/x/net/html"

	"github.com/postern-mail/postern/plugins/internal/mime"
)

// bodyTest has "body" (RFC 5173).
func bodyTest(name string) (testSpec, bool) {
	if name != "body" {
		return testSpec{}, false
	}
	return testSpec{signature{ext: "body", tags: matchTags(
		tagSpec{name: "raw", group: "transform"}, tagSpec{name: "text", group: "transform"},
		tagSpec{name: "content", value: strList, group: "transform"},
	), pos: []kind{strList}}, buildBody}, true
}

func buildBody(c *compiler, b *bound) (cond, *Error) {
	m, err := c.matcher(b)
	if err != nil {
		return nil, err
	}
	m.vars = false // RFC 5173 §6: it does not set match variables
	keys, err := c.keys(m, b.pos[0])
	if err != nil {
		return nil, err
	}
	var types []text
	if a, ok := b.tags["content"]; ok {
		if types, err = c.texts(a); err != nil {
			return nil, err
		}
	}
	transform := b.group["transform"]
	return condFunc(func(x *run) (bool, error) {
		var values []string
		var err error
		switch transform {
		case "raw":
			values, err = x.rawBody(b.Line)
		case "content":
			values, err = x.content(x.texts(types), false, b.Line)
		default:
			values, err = x.content([]string{"text", xhtml}, true, b.Line)
		}
		if err != nil {
			return false, err
		}
		return x.matchValues(m, values, x.texts(keys))
	}), nil
}

// rawBody is the body as it stands, as far as scripts may see it; nothing if there is none.
func (x *run) rawBody(line int) ([]string, error) {
	if x.msg.body.Size == 0 {
		return nil, nil
	}
	r, err := x.msg.body.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, x.limits.BodySize))
	if err != nil {
		return nil, err
	}
	return []string{string(b)}, x.spend(int64(len(b)), line)
}

// content lists the contents of the parts whose type is asked for, decoded, in UTF-8 (RFC 5173 §5.2); plain ones
// without their mark-up (§5.3).
func (x *run) content(types []string, plain bool, line int) ([]string, error) {
	tree, err := x.msg.parts()
	if err != nil {
		return nil, err
	}
	if x.msg.body.Size == 0 && !bytes.HasSuffix(x.msg.source.Header.Block(), []byte("\r\n\r\n")) {
		return nil, nil // where not even a blank line ends the header, there is nothing to match
	}
	var values []string
	left := x.limits.BodySize
	for p := range tree.All {
		if left <= 0 || !wantsType(types, p.Type) {
			continue
		}
		v, err := x.contentOf(tree, p, left, line)
		if err != nil {
			return nil, err
		}
		left -= int64(len(v)) + 1
		if plain && (p.Type == "text/html" || p.Type == xhtml) {
			v = withoutMarkup(v)
		}
		values = append(values, v)
	}
	return values, nil
}

// wantsType: "" is any type, "text" any subtype, "text/html" just that; anything else fits nothing.
func wantsType(types []string, of string) bool {
	for _, t := range types {
		t = strings.ToLower(t)
		if strings.HasPrefix(t, "/") || strings.HasSuffix(t, "/") || strings.Count(t, "/") > 1 {
			continue
		}
		if t == "" || t == of || !strings.Contains(t, "/") && strings.HasPrefix(of, t+"/") {
			return true
		}
	}
	return false
}

// contentOf is the content of one part: of a multipart what stands outside of its parts, of a message its header.
func (x *run) contentOf(tree *mime.Tree, p *mime.Part, limit int64, line int) (string, error) {
	switch {
	case p.IsMessage() && len(p.Children) == 1:
		block := p.Children[0].Header.Block()
		return string(block[:min(int64(len(block)), limit)]), x.spend(int64(len(block)), line)
	case p.IsMultipart() && len(p.Children) > 0:
		return x.outside(tree, p, limit, line)
	case strings.HasPrefix(p.Type, "text/") || p.Type == xhtml:
		return x.partText(p, limit, line)
	}
	r, err := tree.Decoded(p)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit))
	if err != nil {
		return "", err
	}
	return string(b), x.spend(int64(len(b)), line)
}

// outside is the prologue and the epilogue of a multipart.
func (x *run) outside(tree *mime.Tree, p *mime.Part, limit int64, line int) (string, error) {
	r, err := tree.Raw(p)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit))
	if err != nil {
		return "", err
	}
	if err := x.spend(int64(len(b)), line); err != nil {
		return "", err
	}
	text, delimiter := string(b), "--"+p.Boundary
	before, _, _ := strings.Cut("\r\n"+text, "\r\n"+delimiter)
	after := ""
	if i := strings.LastIndex(text, "\r\n"+delimiter+"--"); i >= 0 {
		_, after, _ = strings.Cut(text[i+2:], "\r\n")
	}
	return strings.TrimPrefix(before, "\r\n") + after, nil
}

const xhtml = "application/xhtml+xml"

// withoutMarkup is the text of HTML. Where a tag was, words stay apart.
func withoutMarkup(s string) string {
	var b strings.Builder
	t := html.NewTokenizer(strings.NewReader(s))
	hidden, blank := "", true // the element whose text nobody sees; whether the text ends with a blank
	for {
		kind := t.Next()
		if kind == html.ErrorToken {
			return b.String()
		}
		if kind == html.TextToken {
			if text := t.Token().Data; hidden == "" && text != "" {
				b.WriteString(text)
				blank = text[len(text)-1] <= ' '
			}
			continue
		}
		if kind == html.CommentToken {
			continue
		}
		tag, _ := t.TagName()
		switch name := string(tag); {
		case kind == html.StartTagToken && (name == "script" || name == "style"):
			hidden = name
		case kind == html.EndTagToken && name == hidden:
			hidden = ""
		}
		if !blank {
			b.WriteByte(' ')
			blank = true
		}
	}
}
