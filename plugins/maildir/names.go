package maildir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

const (
	maxName   = 255  // bytes in a file name
	maxFolder = 1024 // bytes of a folder's name as asked for
)

// locate returns the directories of the mailbox and of the folder in it (the same for the
// inbox).
func (p *Plugin) locate(d *sdk.Delivery) (root, dir string, err error) {
	root, err = p.tree.root(d.Recipient)
	if err != nil || d.Folder == "" || strings.EqualFold(d.Folder, "INBOX") {
		return root, root, err
	}
	name, err := p.settings.folder(d.Folder)
	if err != nil {
		return "", "", mail.Permanent(554, 2, 0, "No such folder: "+err.Error())
	}
	return root, filepath.Join(root, name), nil
}

// safe makes a string part of a file name: one that means nothing else than itself,
// different for different strings. Lower case letters, digits, "-", "_", "+", "=", "@" and
// inner dots stand for themselves, every other byte as %XX. So there is no slash, no NUL,
// no colon or comma, no leading dot.
func safe(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-_+=@", c) >= 0, c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// unsafe is the string that became s; false if none did.
func unsafe(s string) (string, bool) {
	v, err := url.PathUnescape(s)
	return v, err == nil && safe(v) == s
}

// keyPart is the key in a file's name: without dots, which separate there.
func keyPart(key string) string {
	s := strings.ReplaceAll(safe(key), ".", "%2e")
	if len(s) > 100 {
		sum := sha256.Sum256([]byte(key))
		return "H" + hex.EncodeToString(sum[:])
	}
	return "Q" + s
}

// partOf returns the key part of a file's name; "" if we did not make it.
func partOf(name string) string {
	_, rest, ok := strings.Cut(name, ".")
	part, _, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || part == "" || part[0] != 'Q' && part[0] != 'H' {
		return ""
	}
	return part
}

// folder is the directory of a folder: its levels, encoded, with a dot before each
// (Maildir++). Slash and dot both separate levels, and no level is empty: nothing but a
// directory right below the mailbox has such a name.
func (s *Settings) folder(name string) (string, error) {
	if len(name) > maxFolder {
		return "", errors.New("its name is too long")
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) || strings.ContainsRune(name, utf8.RuneError) {
		return "", errors.New("its name is no text")
	}
	var b strings.Builder
	for _, level := range strings.Split(strings.ReplaceAll(name, "/", "."), ".") {
		if level == "" {
			return "", errors.New("a part of its name is empty")
		}
		b.WriteByte('.')
		if s.FolderNames == "utf-8" {
			b.WriteString(level)
		} else {
			b.WriteString(modifiedUTF7(level))
		}
	}
	if b.Len() > maxName {
		return "", errors.New("its name is too long")
	}
	return b.String(), nil
}

// modifiedUTF7 is the encoding of mailbox names of RFC 3501 §5.1.3.
func modifiedUTF7(s string) string {
	var b strings.Builder
	var run []rune
	flush := func() {
		if len(run) == 0 {
			return
		}
		var raw []byte
		for _, u := range utf16.Encode(run) {
			raw = append(raw, byte(u>>8), byte(u))
		}
		b.WriteString("&" + utf7().EncodeToString(raw) + "-")
		run = run[:0]
	}
	for _, r := range s {
		if r >= ' ' && r < 0x7f {
			flush()
			b.WriteRune(r)
			if r == '&' {
				b.WriteByte('-')
			}
			continue
		}
		run = append(run, r)
	}
	flush()
	return b.String()
}

// seconds is the time in a file's name.
func seconds(name string) (time.Time, bool) {
	s, _, ok := strings.Cut(name, ".")
	n, err := strconv.ParseInt(s, 10, 64)
	return time.Unix(n, 0), ok && err == nil
}
