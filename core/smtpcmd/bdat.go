package smtpcmd

import (
	"errors"
	"strconv"
	"strings"
)

// Bdat is what BDAT says (RFC 3030 §2).
type Bdat struct {
	Size int64 // octets
	Last bool
}

// ParseBdat parses the argument of BDAT.
func ParseBdat(arg string) (Bdat, error) {
	size, last, _ := strings.Cut(arg, " ")
	last = strings.TrimLeft(last, " ")
	switch {
	case size == "":
		return Bdat{}, errors.New("no size")
	case last != "" && !strings.EqualFold(last, "LAST"):
		return Bdat{}, errors.New("only LAST may follow the size")
	case strings.Trim(size, "0123456789") != "":
		return Bdat{}, errors.New("size is not a number")
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return Bdat{}, errors.New("size is too large")
	}
	return Bdat{n, last != ""}, nil
}
