package dkimsig

// oversigned fields are signed once more often than they are there, so that nobody can add
// one (RFC 6376 §5.4.2): From always, and what people read or answer to.
func oversigned() []string { return []string{"from", "reply-to", "subject", "to", "cc"} }

// signed fields are signed as often as they are there; those of them that say how the body
// is to be read, and those that later servers add where they are missing (Postfix does, to
// mail of its own networks), once more if they are there at all. Fields that transport
// changes or lists add later (Received, Return-Path, List-Id...) are left out, unless they
// are there.
func signed() (withOne, plain []string) {
	return []string{"date", "message-id", "mime-version", "content-type", "content-transfer-encoding"},
		[]string{"sender", "in-reply-to", "references", "content-id", "content-description",
			"resent-from", "resent-to", "resent-cc", "resent-date", "resent-message-id",
			"list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post", "list-owner", "list-archive"}
}

// maxRepeats bounds how often a field is named.
const maxRepeats = 3

// Choose is which fields of a header should be signed: an h= list, in lower case.
func Choose(f *Fields) []string {
	var names []string
	add := func(name string, times int) {
		for range min(times, maxRepeats) {
			names = append(names, name)
		}
	}
	for _, name := range oversigned() {
		add(name, f.Count(name)+1)
	}
	withOne, plain := signed()
	for _, name := range withOne {
		if n := f.Count(name); n > 0 {
			add(name, n+1)
		}
	}
	for _, name := range plain {
		add(name, f.Count(name))
	}
	return names
}
