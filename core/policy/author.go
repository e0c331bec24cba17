package policy

import (
	"context"
	"io"
	"mime"
	netmail "net/mail"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Limits on From.
const (
	maxFrom    = 64 << 10 // bytes of all fields: net/mail has had parsers that take more than linear time
	maxAuthors = 100      // addresses: for each the directory is asked
)

// Author is asked when a message is there: with SenderLogin nobody who logged in writes, in From, in the
// name of another account of ours. Readers see that address, and the gateway signs it. Names at other
// domains are for those to disown.
func (p *Policy) Author(ctx context.Context, c *mail.Client, h mail.Header) mail.Status {
	if c.User == "" || !p.SenderLogin {
		return mail.Status{}
	}
	room, left := maxFrom, maxAuthors
	for _, f := range h.Fields {
		if !strings.EqualFold(f.Name, "From") {
			continue
		}
		value := f.Value()
		if room -= len(value); room < 0 {
			return mail.Permanent(550, 7, 1, "From is too long")
		}
		all := authors(value)
		if left -= len(all); left < 0 {
			return mail.Permanent(550, 7, 1, "There are too many addresses in From")
		}
		for _, a := range all {
			_, ours, err := p.Directory.Local(ctx, a.Domain)
			if err != nil {
				return p.failed("author", err)
			}
			if !ours {
				continue
			}
			if own, s := p.owns(ctx, c, a); !s.IsZero() {
				return s
			} else if !own {
				return mail.Permanent(550, 7, 1, "The address in From is not yours; log in as its owner")
			}
		}
	}
	return mail.Status{}
}

// authors are the addresses in a value of From. Where it is malformed, that is all in it that looks like one.
func authors(value string) []mail.Path {
	var texts []string
	names := &mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}
	if list, err := (&netmail.AddressParser{WordDecoder: names}).ParseList(value); err == nil {
		for _, a := range list {
			texts = append(texts, a.Address)
		}
	} else {
		texts = strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t\r\n<>()[],;:\"", r) })
	}
	var out []mail.Path
	for _, s := range texts {
		if at := strings.LastIndexByte(s, '@'); at >= 0 {
			if a, err := mail.MakePath(s[:at], s[at+1:]); err == nil {
				out = append(out, a)
			}
		}
	}
	return out
}

// owns reports whether an address leads to the account that logged in. The status says that nobody knows.
func (p *Policy) owns(ctx context.Context, c *mail.Client, a mail.Path) (bool, mail.Status) {
	account, err := mail.ParsePath(c.User)
	if err != nil {
		return false, p.failed("login", err)
	}
	targets, err := p.Directory.Resolve(ctx, a)
	if err != nil && !mail.StatusOf(err).Permanent() {
		return false, p.failed("sender", err)
	}
	for _, t := range targets {
		if t.Fold() == account.Fold() {
			return true, mail.Status{}
		}
	}
	return false, mail.Status{}
}
