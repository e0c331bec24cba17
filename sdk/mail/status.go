package mail

import (
	"errors"
	"fmt"
	"strings"
)

// Status is the outcome of a command or a delivery: an SMTP reply code, an enhanced code
// (RFC 3463) whose class is always that of the reply code, one line of text, and the
// remote MTA that said so, if one did. It implements error. Build it with [OK],
// [Temporary] or [Permanent]; the zero Status means "none yet".
type Status struct {
	Code     int    `json:"code"`
	Enhanced [3]int `json:"enhanced"`
	Text     string `json:"text"`
	// Remote names the host whose reply this is; empty for our own.
	Remote string `json:"remote,omitempty"`
}

// OK is a success: code is 2yz, the enhanced code 2.subject.detail.
func OK(code, subject, detail int, text string) Status {
	return newStatus(2, code, subject, detail, text)
}

// Temporary is a failure that may pass: code is 4yz, the enhanced code 4.subject.detail.
func Temporary(code, subject, detail int, text string) Status {
	return newStatus(4, code, subject, detail, text)
}

// Permanent is a failure that will not pass: code is 5yz, the enhanced code 5.subject.detail.
func Permanent(code, subject, detail int, text string) Status {
	return newStatus(5, code, subject, detail, text)
}

func newStatus(class, code, subject, detail int, text string) Status {
	if code/100 != class || code%100 > 59 {
		code = class * 100
		if class != 2 {
			code += 51 // 451 and 551 would differ in meaning; 451 fits, 554 is set below
		}
		if class == 5 {
			code = 554
		}
	}
	if subject < 0 || subject > 999 || detail < 0 || detail > 999 {
		subject, detail = 0, 0
	}
	return Status{Code: code, Enhanced: [3]int{class, subject, detail}, Text: cleanText(text)}
}

// cleanText makes text safe for a reply line: printable, one line, at most 400 octets.
func cleanText(s string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\r' || r == '\n':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(clean) > 400 {
		clean = strings.ToValidUTF8(clean[:400], "")
	}
	return clean
}

// WithRemote returns s with the name of the remote MTA that said it.
func (s Status) WithRemote(host string) Status {
	s.Remote = cleanText(host)
	return s
}

// IsZero reports whether there is no status yet.
func (s Status) IsZero() bool { return s.Code == 0 }

// Success reports a 2yz status.
func (s Status) Success() bool { return s.Code/100 == 2 }

// Permanent reports a 5yz status.
func (s Status) Permanent() bool { return s.Code/100 == 5 }

// Temporary reports a 4yz status.
func (s Status) Temporary() bool { return s.Code/100 == 4 }

// EnhancedString is the enhanced code as "5.1.1".
func (s Status) EnhancedString() string {
	return fmt.Sprintf("%d.%d.%d", s.Enhanced[0], s.Enhanced[1], s.Enhanced[2])
}

// Error is the reply as one line: "550 5.1.1 no such user".
func (s Status) Error() string {
	return fmt.Sprintf("%d %s %s", s.Code, s.EnhancedString(), s.Text)
}

// StatusOf is the only converter from errors to statuses. A Status (also wrapped) is
// itself; every other error is temporary and says nothing outside: permanent has to be
// said on purpose. A nil error is 250 2.0.0 Ok.
func StatusOf(err error) Status {
	if err == nil {
		return OK(250, 0, 0, "Ok")
	}
	var s Status
	if errors.As(err, &s) && !s.IsZero() {
		return s
	}
	return Temporary(451, 3, 0, "Local error, try again later")
}
