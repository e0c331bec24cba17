package attachments

import (
	"bytes"
	"context"
	"fmt"
	"mime/quotedprintable"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// strip puts a note in the place of each part in which something was found. Every other
// byte of the body stays as it is.
func (p *Plugin) strip(ctx context.Context, m *mail.Message, tree *mime.Tree, look *look, v *sdk.Verdict) error {
	found := byPart(look.found)
	var rs []mime.Replacement
	for part := range tree.All {
		list := found[part]
		if list == nil {
			continue
		}
		header, text := p.notice(list)
		if part == tree.Root {
			rs = append(rs, tree.ReplaceBody(part, text))
			editHeader(v, m.Header)
		} else {
			rs = append(rs, tree.Replace(part, append([]byte(header+"\r\n"), text...)))
		}
	}
	body, err := sdk.NewBody(ctx)
	if err != nil {
		return err
	}
	if err := tree.Rewrite(body, rs); err != nil {
		return err
	}
	v.ReplaceBody(body)
	v.AddHeader(removedField, fmt.Sprintf("%d (%s)", len(rs), asciiOnly(look.found[0].rule.name)))
	return nil
}

// byPart sorts findings by the part that is removed: the outermost in which there is one.
func byPart(all []finding) map[*mime.Part][]*finding {
	removed := make(map[*mime.Part]bool, len(all))
	for i := range all {
		removed[all[i].part] = true
	}
	found := make(map[*mime.Part][]*finding)
	for i := range all {
		top := all[i].part
		for q := top; q != nil; q = q.Parent {
			if removed[q] {
				top = q
			}
		}
		found[top] = append(found[top], &all[i])
	}
	return found
}

// noticeHeader describes the note.
var noticeHeader = []struct{ name, value string }{
	{"Content-Type", "text/plain; charset=utf-8"},
	{"Content-Transfer-Encoding", "quoted-printable"},
	{"Content-Disposition", "inline"},
}

// maxListed is how many files a note names.
const maxListed = 20

// notice is the part that takes the place of what was removed, without a line end at the
// end.
func (p *Plugin) notice(list []*finding) (header string, text []byte) {
	for _, f := range noticeHeader {
		header += f.name + ": " + f.value + "\r\n"
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(p.set.Note, "\r\n", "\n")), "\n")
	lines = append(lines, "")
	for i, f := range list {
		if i == maxListed {
			lines = append(lines, fmt.Sprintf("... and %d more", len(list)-i))
			break
		}
		lines = append(lines, f.String())
	}
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	w.Write([]byte(strings.Join(lines, "\r\n")))
	w.Close()
	return header, b.Bytes()
}

// editHeader makes the header of a message that is nothing but the attachment that of the
// note.
func editHeader(v *sdk.Verdict, h mail.Header) {
	drop := make(map[string]bool)
	for _, f := range h.Fields {
		name := strings.ToLower(f.Name)
		if strings.HasPrefix(name, "content-") && !drop[name] && len(drop) < 50 {
			drop[name] = true
			v.RemoveHeader(-1, f.Name)
		}
	}
	if !h.Has("MIME-Version") {
		v.InsertHeader(-1, "MIME-Version", "1.0")
	}
	for _, f := range noticeHeader {
		v.InsertHeader(-1, f.name, f.value)
	}
}

func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}
