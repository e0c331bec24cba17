package mail

import "strings"

// CutEnhanced cuts the enhanced status code (RFC 3463 §2) off the text of a reply, with the space
// after it. Whether its class is that of the reply is for the caller to see.
func CutEnhanced(text string) (code [3]int, rest string, ok bool) {
	word, rest, _ := strings.Cut(text, " ")
	field, digits := 0, 0
	for i := 0; i < len(word); i++ {
		switch c := word[i]; {
		case c >= '0' && c <= '9' && digits < 3:
			code[field] = code[field]*10 + int(c-'0')
			digits++
		case c == '.' && digits > 0 && field < 2:
			field++
			digits = 0
		default:
			return [3]int{}, text, false
		}
	}
	class := code[0]
	if field != 2 || digits == 0 || word[1] != '.' || class != 2 && class != 4 && class != 5 {
		return [3]int{}, text, false
	}
	return code, rest, true
}
