package dkimsig

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a tag list. What is longer is no signature that anybody made in earnest.
const (
	MaxTagList = 16 << 10 // bytes
	maxTags    = 64
	maxName    = 32 // bytes of a tag's name
)

// Tags is a parsed tag list (RFC 6376 §3.2).
type Tags []Tag

// Tag is one tag, its value without the white space around it.
type Tag struct{ Name, Value string }

// ParseTags parses a tag list that is unfolded, or folded with CRLF. A name that is there
// twice makes the whole list invalid, as RFC 6376 §3.2 says.
func ParseTags(s string) (Tags, error) { return parseTags(s, false) }

// parseTags is ParseTags; with gaps, nothing may stand between two semicolons.
func parseTags(s string, gaps bool) (Tags, error) {
	if len(s) > MaxTagList {
		return nil, errors.New("the tag list is too long")
	}
	var tags Tags
	for rest, more := s, true; more; {
		var spec string
		spec, rest, more = strings.Cut(rest, ";")
		if strings.Trim(spec, fws) == "" && (gaps || !more && len(tags) > 0) {
			continue // the last semicolon may end the list
		}
		name, value, ok := strings.Cut(spec, "=")
		t := Tag{strings.Trim(name, fws), strings.Trim(value, fws)}
		switch {
		case !ok || !validName(t.Name):
			return nil, errors.New("the tag list is malformed")
		case !validValue(t.Value):
			return nil, fmt.Errorf("tag %s has a character that values do not have", t.Name)
		case tags.Has(t.Name):
			return nil, fmt.Errorf("tag %s is there twice", t.Name)
		case len(tags) == maxTags:
			return nil, errors.New("the tag list has too many tags")
		}
		tags = append(tags, t)
	}
	return tags, nil
}

// fws are the characters of folding white space.
const fws = " \t\r\n"

// Has reports whether there is a tag of that name. Names are case-sensitive.
func (t Tags) Has(name string) bool { _, ok := t.Get(name); return ok }

// Get returns a tag's value.
func (t Tags) Get(name string) (string, bool) {
	for _, tag := range t {
		if tag.Name == name {
			return tag.Value, true
		}
	}
	return "", false
}

// need is Get for tags that have to be there, with a value.
func (t Tags) need(name string) (string, error) {
	v, ok := t.Get(name)
	if !ok {
		return "", fmt.Errorf("tag %s is missing", name)
	}
	if v == "" {
		return "", fmt.Errorf("tag %s is empty", name)
	}
	return v, nil
}

func validName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// validValue accepts the characters of RFC 6376 §3.2, and UTF-8 (RFC 8616 §4).
func validValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' && c != '\r' && c != '\n' || c == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

// list splits a value at colons and drops the white space around the parts.
func list(s string) []string {
	parts := strings.Split(s, ":")
	for i := range parts {
		parts[i] = strings.Trim(parts[i], fws)
	}
	return parts
}
