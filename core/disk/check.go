package disk

// Kind says what a directory's file system does with what is synced.
type Kind uint8

// The kinds of file systems.
const (
	Durable  Kind = iota // as far as can be seen
	Memory               // tmpfs or ramfs: everything is lost with the machine
	Volatile             // overlayfs mounted with "volatile": syncs do nothing
	Overlay              // overlayfs: durable, but gone with its container
)

// String describes the kind for logs and for `check`.
func (k Kind) String() string {
	switch k {
	case Memory:
		return "a file system in memory: everything is lost with the machine"
	case Volatile:
		return "a volatile overlay file system: syncs do nothing and a power cut loses mail"
	case Overlay:
		return "an overlay file system: mail is gone when the container is removed; use a volume"
	}
	return "a durable file system"
}

// Check tells which kind of file system holds dir, which must exist.
func Check(dir string) (Kind, error) { return check(dir) }
