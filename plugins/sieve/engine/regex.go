package engine

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// Bounds of regular expressions: the bytes of one, the steps that it has, and those of all that a script names.
const (
	regexSize  = 4 << 10
	regexSteps = 4 << 10
	scriptRegs = 128 << 10
)

// regex is a compiled regular expression. Each byte of a value may cost as much as it has steps.
type regex struct {
	*regexp.Regexp
	steps int64
}

// compileRegex compiles an extended regular expression (draft-ietf-sieve-regex): leftmost, then longest, in time that
// is linear in the value.
func compileRegex(pattern string, cmp comparator) (regex, error) {
	if len(pattern) > regexSize {
		return regex{}, fmt.Errorf("longer than %d bytes", regexSize)
	}
	pattern = fromPOSIX(pattern)
	tree, err := syntax.Parse(pattern, syntax.Perl) // before anything is put around it
	if err != nil {
		return regex{}, err
	}
	steps := stepsOf(tree)
	if steps > regexSteps {
		return regex{}, fmt.Errorf("more than %d steps", regexSteps)
	}
	if cmp != octet {
		pattern = "(?i:" + pattern + ")"
	}
	re, err := regexp.Compile(pattern)
	if err == nil {
		re.Longest()
	}
	return regex{re, steps}, err
}

// stepsOf is how many steps an expression has about, with its repetitions written out.
func stepsOf(re *syntax.Regexp) int64 {
	n := int64(1)
	for _, sub := range re.Sub {
		n += stepsOf(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		n += int64(len(re.Rune))
	case syntax.OpRepeat:
		times := re.Max
		if times < 0 {
			times = re.Min + 1
		}
		n = 1 + (n-1)*int64(times)
	}
	return n
}

func (x *run) regex(pattern string, m *matcher) (regex, error) {
	const compile = 128 // what it costs, by step
	k := regexKey{pattern, m.cmp}
	if re, ok := x.regexes[k]; ok {
		return re, nil
	}
	re, err := compileRegex(pattern, m.cmp)
	if err != nil {
		return re, errorAt(m.line, "the regular expression %q: %v", printable(pattern), err)
	}
	if x.regexes == nil {
		x.regexes = make(map[regexKey]regex)
	}
	x.regexes[k] = re
	return re, x.spend(compile*re.steps, m.line)
}

type regexKey struct {
	pattern string
	cmp     comparator
}

// fromPOSIX turns an extended regular expression of POSIX 1003.2, which the draft asks for, into one of RE2 where they
// differ: in brackets a backslash is an ordinary character, but before the letter of a class of RE2, and "[=a=]" and
// "[.a.]" stand for "a"; "{,2}" is "{0,2}"; a repetition may follow a repetition; and a ")" that closes nothing is
// itself.
func fromPOSIX(s string) string {
	var b strings.Builder
	const most = 100 // repetitions of repetitions; RE2 refuses what is left of them
	nested := 0
	var open []int          // where groups begin in b
	last, again := 0, false // where what a repetition repeats begins; whether it is repeated already
	for i := 0; i < len(s); {
		start, repeat := b.Len(), false
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			b.WriteString(s[i : i+2])
			i += 2
		case c == '[':
			i += bracket(&b, s[i:])
		case c == '(':
			open = append(open, start)
			b.WriteByte(c)
			i++
		case c == ')' && len(open) > 0:
			start, open = open[len(open)-1], open[:len(open)-1]
			b.WriteByte(c)
			i++
		case c == ')':
			b.WriteString(`\)`)
			i++
		case strings.IndexByte("*+?", c) >= 0 || c == '{' && bounds.MatchString(s[i:]):
			times := bounds.FindString(s[i:])
			if times == "" {
				times = s[i : i+1]
			}
			i += len(times)
			if again && nested < most {
				nested++
				text := b.String()
				b.Reset()
				b.WriteString(text[:last] + "(?:" + text[last:] + ")")
			}
			b.WriteString(strings.Replace(times, "{,", "{0,", 1))
			start, repeat = last, true
		default:
			b.WriteByte(c)
			i++
		}
		last, again = start, repeat
	}
	return b.String()
}

// bounds are those of a repetition.
var bounds = regexp.MustCompile(`^\{[0-9]*(?:,[0-9]*)?\}`)

// bracket writes the bracket expression that s begins with, and returns its length.
func bracket(b *strings.Builder, s string) int {
	i := 1
	if strings.HasPrefix(s[i:], "^") {
		i++
	}
	b.WriteString(s[:i])
	for first := i; i < len(s); {
		switch c := s[i]; {
		case c == ']' && i > first:
			b.WriteByte(c)
			return i + 1
		case c == '[' && i+1 < len(s) && strings.IndexByte(":=.", s[i+1]) >= 0:
			n := strings.Index(s[i+2:], s[i+1:i+2]+"]")
			if n < 0 {
				b.WriteString(s[i:])
				return len(s)
			}
			if s[i+1] == ':' {
				b.WriteString(s[i : i+2+n+2])
			} else {
				b.WriteString(literal(s[i+2 : i+2+n]))
			}
			i += 2 + n + 2
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`dDsSwW\`, s[i+1]) >= 0:
			b.WriteString(s[i : i+2])
			i += 2
		case c == '\\' || c == '[' || c == ']':
			b.WriteString(literal(s[i : i+1]))
			i++
		default:
			b.WriteByte(c)
			i++
		}
	}
	return len(s)
}

// literal is a character in brackets that stands for itself.
func literal(s string) string {
	return regexp.QuoteMeta(s)
}
