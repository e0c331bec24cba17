package draft

import "bytes"

// WireForm reports whether the gateway takes b as a new body: line ends are CRLF, without a
// bare CR or LF, and there is no NUL.
func WireForm(b []byte) bool {
	n := bytes.Count(b, []byte("\r\n"))
	return bytes.Count(b, []byte("\r")) == n && bytes.Count(b, []byte("\n")) == n && bytes.IndexByte(b, 0) < 0
}
