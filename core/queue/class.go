package queue

import (
	"fmt"
	"slices"
	"strings"
)

// Class is the queue of its own that an entry waits in, by what the entry is. At a next hop no
// class takes another's place, and each has a turn and a limit of its own among all deliveries.
type Class uint8

// The classes. The numbers are stored; do not reorder.
const (
	Mail    Class = iota // what somebody sent
	Copy                 // a copy of it that a plugin sends (BCC)
	Journal              // what a plugin sends in the place of a copy: a report about the message
	Report               // what the gateway says by itself: delivery reports, notices, replies
)

// Classes is how many there are.
const Classes = int(Report) + 1

var classNames = [Classes]string{"mail", "copy", "journal", "report"}

// String is the name used by commands.
func (c Class) String() string {
	if int(c) < Classes {
		return classNames[c]
	}
	return "unknown"
}

// IsCopy reports whether an entry is a copy made by a plugin, whatever its content: it never shows in
// a reply or in a DSN about the message.
func (c Class) IsCopy() bool { return c == Copy || c == Journal }

// ParseClass returns the class with that name.
func ParseClass(name string) (Class, error) {
	i := slices.Index(classNames[:], name)
	if i < 0 {
		return 0, fmt.Errorf("%q is no class of mail: there are %s", name, strings.Join(classNames[:], ", "))
	}
	return Class(i), nil
}
