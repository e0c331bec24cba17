package journal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/postern-mail/postern/sdk/mail"
)

// seals tells our reports from all else, wherever they come back from: an archive that forwards
// to us would otherwise get reports of its reports for ever. A field that anybody could write
// would be a way around the journal, so it is sealed with a key of ours.
type seals struct {
	file string // "": a key of this process

	mu  sync.Mutex
	key []byte
}

const (
	sealField = "X-Journal-Report"
	keySize   = 32
	maxSeals  = 10 // fields that are looked at
)

// load returns the key, and makes it where there is none yet.
func (s *seals) load() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key != nil {
		return s.key, nil
	}
	fresh := make([]byte, keySize)
	rand.Read(fresh)
	if s.file == "" {
		s.key = fresh
		return s.key, nil
	}
	key, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = s.make(fresh)
	}
	if err == nil && len(key) != keySize {
		err = errors.New(s.file + " is not a key; remove it, and a new one is made")
	}
	if err != nil {
		return nil, err
	}
	s.key = key
	return key, nil
}

// make writes a key whole or not at all. Of two processes that do so at the same time the first
// one's is the key of both.
func (s *seals) make(fresh []byte) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(s.file), "new-*") // 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(fresh)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), s.file); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(s.file)
}

// seal is the value of the field in the report of a message.
func seal(key []byte, id string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("journal report " + id))
	return id + " " + hex.EncodeToString(mac.Sum(nil)[:16])
}

// sealed reports whether a header is that of a report of ours.
func sealed(key []byte, h mail.Header) bool {
	values := h.Values(sealField)
	for _, v := range values[:min(len(values), maxSeals)] {
		id, _, ok := strings.Cut(v, " ")
		if ok && hmac.Equal([]byte(v), []byte(seal(key, id))) {
			return true
		}
	}
	return false
}
