package sdk

import "strings"

// Owner is implemented by filters whose settings decide which header fields are theirs.
type Owner interface {
	// Owns returns more of [Manifest].Owns. It is called once, after Configure.
	Owns() []string
}

// OwnsField reports whether the manifest says that a header field is the plugin's.
func (m Manifest) OwnsField(name string) bool {
	for _, own := range m.Owns {
		begin, open := strings.CutSuffix(own, "*")
		if len(name) < len(begin) || !open && len(name) != len(begin) {
			continue
		}
		if strings.EqualFold(name[:len(begin)], begin) {
			return true
		}
	}
	return false
}
