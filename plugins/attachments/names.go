package attachments

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// forms are what a name may become before a program decides by its extension what to do
// with the file, in lower case: without folders, without what is invisible, without the
// dots and spaces at the end that Windows drops, and up to a colon (NTFS streams); also without
// single quotes around it, with ASCII for wide characters, and without the spaces after its last
// dot, as readers have it who unfold in their own way.
func forms(names []string) []string {
	var out []string
	add := func(s string) {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, n := range untilNUL(names) {
		n = strings.ToLower(n)
		add(n)
		n = strings.Map(func(r rune) rune {
			if invisible(r) {
				return -1
			}
			return r
		}, n)
		n = norm.NFKC.String(n)
		n = n[strings.LastIndexAny(strings.TrimRight(n, `/\ .`), `/\`)+1:]
		add(trimEnd(n))
		if q := strings.Trim(n, "'`"); q != n {
			add(trimEnd(q))
		}
		if i := strings.LastIndexByte(n, '.'); i >= 0 {
			add(trimEnd(n[:i+1] + strings.TrimLeftFunc(n[i+1:], unicode.IsSpace)))
		}
		if i := strings.IndexByte(n, ':'); i > 1 {
			add(trimEnd(n[:i]))
			add(trimEnd(n[i+1:]))
		}
	}
	return out
}

// untilNUL adds to names with a NUL what programs make of them that end there.
func untilNUL(names []string) []string {
	for _, n := range names {
		if short, _, ok := strings.Cut(n, "\x00"); ok {
			names = append(names[:len(names):len(names)], short)
		}
	}
	return names
}

func trimEnd(s string) string {
	return strings.TrimSpace(strings.TrimRightFunc(s, func(r rune) bool { return r == '.' || unicode.IsSpace(r) }))
}

// invisible are characters that are not shown: controls, zero width, directions.
func invisible(r rune) bool {
	return r < ' ' || r == 0x7f || unicode.Is(unicode.Cf, r) || r >= 0x80 && r < 0xa0
}

// isBidi are the characters that turn the direction of writing: "cod.exe" shows as "exe.doc".
func isBidi(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200f || r == 0x061c
}

// opened are extensions that are opened with a program; dangerous are those that are run.
var (
	opened    = strings.Fields("doc docx xls xlsx ppt pptx pdf rtf txt csv htm html jpg jpeg png gif bmp tif tiff svg mp3 mp4 avi mov wav zip rar 7z xml eml odt ods")
	dangerous = strings.Fields("exe scr com bat cmd pif js jse vbs vbe wsf wsh hta lnk ps1 msi cpl jar dll reg url iso img one xll chm")
)

// disguised reports whether a name wants to look like that of another kind of file: two
// extensions of which the last is run, many spaces before the last, dots or spaces after it, or
// another direction of writing.
func disguised(names []string) bool {
	for _, n := range names {
		if strings.ContainsFunc(n, isBidi) || trimEnd(n) != strings.TrimSpace(n) || strings.HasSuffix(n, " ") {
			return true
		}
		n = strings.ToLower(n)
		i := strings.LastIndexByte(n, '.')
		if i < 0 || !slices.Contains(dangerous, n[i+1:]) {
			continue
		}
		before := n[:i]
		trimmed := strings.TrimRightFunc(before, unicode.IsSpace)
		if len(before)-len(trimmed) > 3 {
			return true
		}
		if j := strings.LastIndexByte(trimmed, '.'); j >= 0 && slices.Contains(opened, trimmed[j+1:]) {
			return true
		}
	}
	return false
}

// printable makes text from a message fit for a reply, a reason or a note: one line of at
// most max bytes, nothing invisible.
func printable(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || invisible(r) || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
	if len(s) > max {
		cut := max - len("...")
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	return s
}
