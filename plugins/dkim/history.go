package dkim

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/sdk/mail"
)

// history is what happened to a domain's keys, by selector. It is the file
// DOMAIN.rotation.json beside them: the files of the keys and the DNS say which keys
// there are, and this only since when. Only the plugin's Service writes it.
type history map[string]*event

// event is what happened to one key; what did not happen is nil.
type event struct {
	// Fingerprint tells whether the file has another key than it had.
	Fingerprint string `json:"fingerprint"`
	// Published: the DNS showed it for the first time.
	Published *time.Time `json:"published,omitempty"`
	// Gone: since then the DNS has said that it does not have it, or has another.
	Gone *time.Time `json:"gone,omitempty"`
	// Superseded: a later key took its place.
	Superseded *time.Time `json:"superseded,omitempty"`
	// Retired: its file was moved away.
	Retired *time.Time `json:"retired,omitempty"`
}

// of returns what happened to a key. What happened to another key under its selector is
// not told.
func (h history) of(k *dkimkey.Key) event {
	if e := h[k.Selector]; e != nil && e.Fingerprint == fingerprint(k) {
		return *e
	}
	return event{}
}

// remember takes what is in memory and not in the file, which may not have been written.
func (h history) remember(old *ring, name mail.Domain) {
	if old == nil || old.domains[name] == nil {
		return
	}
	for selector, e := range old.domains[name].history {
		if h[selector] == nil {
			h[selector] = e
		}
	}
}

// fingerprint is short for a public key.
func fingerprint(k *dkimkey.Key) string {
	der, err := x509.MarshalPKIXPublicKey(k.Signer.Public())
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:16])
}

func historyFile(dir string, d mail.Domain) string {
	return filepath.Join(dir, d.String()+".rotation.json")
}

const maxHistory = 1 << 20 // bytes

func readHistory(dir string, d mail.Domain) (history, error) {
	f, err := os.Open(historyFile(dir, d))
	if errors.Is(err, os.ErrNotExist) {
		return history{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxHistory))
	if err != nil {
		return nil, err
	}
	h := history{}
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, fmt.Errorf("%s: %w; it only says when keys were published: move it away", f.Name(), err)
	}
	for selector, e := range h {
		if e == nil {
			delete(h, selector)
		}
	}
	return h, nil
}

// write makes the history durable.
func (h history) write(dir string, d mail.Domain) error {
	text, err := json.MarshalIndent(h, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".rotation-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), historyFile(dir, d))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return dkimkey.SyncDir(dir)
}
