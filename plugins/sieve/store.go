package sieve

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Store keeps the scripts of accounts among the plugin's data about them. A change is made as
// a whole or not at all, also beside other changes of the same scripts: there is one index
// for each account, and it alone says which scripts there are. A Store is safe for
// concurrent use.
type Store struct {
	Data   Data
	Quota  Quota
	Engine engine.Options // what scripts may use
	// Clock is time.Now if it is nil.
	Clock func() time.Time
}

// Data is where scripts are kept. [*sdk.Host] is one.
type Data interface {
	Data(ctx context.Context, account mail.Path, key string) (sdk.Datum, error)
	PutData(ctx context.Context, account mail.Path, key string, value []byte, version int64) (int64, error)
	DeleteData(ctx context.Context, account mail.Path, key string, version int64) error
	ListData(ctx context.Context, account mail.Path, prefix string, yield func(sdk.Datum) bool) error
}

// Quota bounds the scripts of one account.
type Quota struct {
	Scripts    int   // how many
	ScriptSize int64 // of one, in bytes; 1 MiB at most
	Size       int64 // of all, in bytes
}

// DefaultQuota is the quota where the settings do not say.
func DefaultQuota() Quota { return Quota{Scripts: 32, ScriptSize: 256 << 10, Size: 1 << 20} }

// Script is a script of an account, without its text.
type Script struct {
	Name    string    `json:"name"`
	Active  bool      `json:"active"`
	Size    int64     `json:"size"` // in bytes
	Changed time.Time `json:"changed"`
	Hash    string    `json:"-"` // SHA-256 of the text, in hexadecimal
	id      string    // of the text among the data
}

// Errors of a Store. A script that does not compile is an [*engine.Error].
var (
	ErrNoScript = errors.New("there is no script of that name")
	ErrExists   = errors.New("there is a script of that name already")
	ErrActive   = errors.New("the script is active")
	ErrName     = errors.New("a script's name has 1 to 512 bytes of text, without / and \\")
	// ErrTooMany, ErrTooLarge and ErrNoSpace say which quota is exceeded.
	ErrTooMany  = errors.New("there are too many scripts")
	ErrTooLarge = errors.New("the script is too large")
	ErrNoSpace  = errors.New("the scripts take too much space")
	// ErrDamaged says that a text is not the one that was put.
	ErrDamaged = errors.New("the text is damaged")
)

// The keys: one index, and each text under an id of its own, which never gets another text.
const (
	indexKey   = "scripts"
	textPrefix = "script/"
)

// index says which scripts there are.
type index struct {
	Active  string           `json:"active,omitempty"`
	Scripts map[string]entry `json:"scripts"`
	version int64
}

type entry struct {
	ID      string `json:"id"`
	Hash    string `json:"sha256"`
	Size    int64  `json:"size"`
	Changed int64  `json:"changed"` // Unix seconds
}

func (x *index) script(name string) Script {
	e := x.Scripts[name]
	return Script{Name: name, Active: name == x.Active, Size: e.Size, Changed: time.Unix(e.Changed, 0).UTC(), Hash: e.Hash, id: e.ID}
}

func (s *Store) now() time.Time {
	if s.Clock == nil {
		return time.Now()
	}
	return s.Clock()
}

func (s *Store) read(ctx context.Context, account mail.Path) (*index, error) {
	d, err := s.Data.Data(ctx, account, indexKey)
	if err != nil {
		return nil, fmt.Errorf("scripts of %s: %w", account, err)
	}
	x := &index{version: d.Version}
	if d.Version != 0 {
		if err := json.Unmarshal(d.Value, x); err != nil {
			return nil, fmt.Errorf("scripts of %s: %w", account, err)
		}
	}
	if x.Scripts == nil {
		x.Scripts = make(map[string]entry)
	}
	return x, nil
}

// change reads the index, lets f change it and writes it, again if somebody else was faster.
// The error of f ends it.
func (s *Store) change(ctx context.Context, account mail.Path, f func(*index) error) error {
	for range 20 {
		x, err := s.read(ctx, account)
		if err != nil {
			return err
		}
		if err := f(x); err != nil {
			return err
		}
		text, err := json.Marshal(x)
		if err != nil {
			return err
		}
		_, err = s.Data.PutData(ctx, account, indexKey, text, x.version)
		if err == nil {
			return nil
		} else if !errors.Is(err, sdk.ErrConflict) {
			return fmt.Errorf("scripts of %s: %w", account, err)
		}
	}
	return fmt.Errorf("scripts of %s: %w", account, sdk.ErrConflict)
}

// List returns the scripts of an account, by name.
func (s *Store) List(ctx context.Context, account mail.Path) ([]Script, error) {
	x, err := s.read(ctx, account)
	if err != nil {
		return nil, err
	}
	out := make([]Script, 0, len(x.Scripts))
	for name := range x.Scripts {
		out = append(out, x.script(name))
	}
	slices.SortFunc(out, func(a, b Script) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Active returns the active script; ok is false if there is none.
func (s *Store) Active(ctx context.Context, account mail.Path) (script Script, ok bool, err error) {
	x, err := s.read(ctx, account)
	if err != nil {
		return Script{}, false, err
	}
	_, ok = x.Scripts[x.Active]
	return x.script(x.Active), ok, nil
}

// Get returns a script and its text.
func (s *Store) Get(ctx context.Context, account mail.Path, name string) (Script, []byte, error) {
	for range 20 {
		x, err := s.read(ctx, account)
		if err != nil {
			return Script{}, nil, err
		}
		if _, ok := x.Scripts[name]; !ok {
			return Script{}, nil, ErrNoScript
		}
		script := x.script(name)
		text, err := s.Text(ctx, account, script)
		if !errors.Is(err, ErrNoScript) {
			return script, text, err
		} // it has been replaced meanwhile
	}
	return Script{}, nil, fmt.Errorf("script %q of %s: its text is missing", name, account)
}

// Text returns the text of a script that [Store.List] or [Store.Active] returned; it is
// ErrNoScript when that has been replaced or removed meanwhile, and ErrDamaged when it is not what was put.
func (s *Store) Text(ctx context.Context, account mail.Path, script Script) ([]byte, error) {
	d, err := s.Data.Data(ctx, account, textPrefix+script.id)
	switch {
	case err != nil:
		return nil, fmt.Errorf("scripts of %s: %w", account, err)
	case d.Version == 0:
		return nil, ErrNoScript
	case hashOf(d.Value) != script.Hash:
		return nil, fmt.Errorf("script %q of %s: %w", script.Name, account, ErrDamaged)
	}
	return d.Value, nil
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// HaveSpace reports whether a script of that name and size, in bytes, can be put.
func (s *Store) HaveSpace(ctx context.Context, account mail.Path, name string, size int64) error {
	if !engine.ValidScriptName(name) {
		return ErrName
	}
	x, err := s.read(ctx, account)
	if err != nil {
		return err
	}
	return s.room(x, name, size)
}

func (s *Store) room(x *index, name string, size int64) error {
	old, replaced := x.Scripts[name]
	total := size - old.Size
	for _, e := range x.Scripts {
		total += e.Size
	}
	switch {
	case size > s.Quota.ScriptSize:
		return fmt.Errorf("%w: %d bytes are allowed", ErrTooLarge, s.Quota.ScriptSize)
	case !replaced && len(x.Scripts) >= s.Quota.Scripts:
		return fmt.Errorf("%w: %d are allowed", ErrTooMany, s.Quota.Scripts)
	case total > s.Quota.Size:
		return fmt.Errorf("%w: %d bytes are allowed in all", ErrNoSpace, s.Quota.Size)
	}
	return nil
}

// Check compiles a script.
func (s *Store) Check(text []byte) error {
	_, err := engine.Compile(text, s.Engine)
	return err
}

// Put stores a script that compiles, in the place of one with that name. An active one stays
// active.
func (s *Store) Put(ctx context.Context, account mail.Path, name string, text []byte) error {
	if err := s.HaveSpace(ctx, account, name, int64(len(text))); err != nil {
		return err
	}
	if err := s.Check(text); err != nil {
		return err
	}
	now := s.now()
	e := entry{ID: fmt.Sprintf("%010x-%s", now.Unix(), rand.Text()), Hash: hashOf(text), Size: int64(len(text)), Changed: now.Unix()}
	if text == nil {
		text = []byte{}
	}
	if _, err := s.Data.PutData(ctx, account, textPrefix+e.ID, text, 0); err != nil {
		return fmt.Errorf("scripts of %s: %w", account, err)
	}
	var old entry
	err := s.change(ctx, account, func(x *index) error {
		if err := s.room(x, name, e.Size); err != nil {
			return err
		}
		old = x.Scripts[name]
		x.Scripts[name] = e
		return nil
	})
	if err != nil {
		old = e
	}
	s.drop(ctx, account, old)
	s.sweep(ctx, account, now)
	return err
}

// drop removes a text that the index does not name any more. If that fails, sweep will.
func (s *Store) drop(ctx context.Context, account mail.Path, e entry) {
	if e.ID != "" {
		s.Data.DeleteData(ctx, account, textPrefix+e.ID, sdk.AnyVersion)
	}
}

// sweepAge is how old texts are that the index does not name because somebody broke off: a
// newer one may be on its way into the index.
const sweepAge = time.Hour

// sweep removes what was left behind.
func (s *Store) sweep(ctx context.Context, account mail.Path, now time.Time) {
	x, err := s.read(ctx, account)
	if err != nil {
		return
	}
	named := make(map[string]bool, len(x.Scripts))
	for _, e := range x.Scripts {
		named[e.ID] = true
	}
	var left []entry
	s.Data.ListData(ctx, account, textPrefix, func(d sdk.Datum) bool {
		id := strings.TrimPrefix(d.Key, textPrefix)
		made, _, _ := strings.Cut(id, "-")
		if at, err := strconv.ParseInt(made, 16, 64); err == nil && !named[id] && now.Sub(time.Unix(at, 0)) > sweepAge {
			left = append(left, entry{ID: id})
		}
		return true
	})
	for _, e := range left {
		s.drop(ctx, account, e)
	}
}

// Activate makes a script the one that runs, and no other; "": none does.
func (s *Store) Activate(ctx context.Context, account mail.Path, name string) error {
	return s.change(ctx, account, func(x *index) error {
		if _, ok := x.Scripts[name]; !ok && name != "" {
			return ErrNoScript
		}
		x.Active = name
		return nil
	})
}

// Delete removes a script that is not active.
func (s *Store) Delete(ctx context.Context, account mail.Path, name string) error {
	var old entry
	err := s.change(ctx, account, func(x *index) error {
		e, ok := x.Scripts[name]
		switch {
		case !ok:
			return ErrNoScript
		case name == x.Active:
			return ErrActive
		}
		old = e
		delete(x.Scripts, name)
		return nil
	})
	if err == nil {
		s.drop(ctx, account, old)
	}
	return err
}

// Rename gives a script another name, one that no other has. An active one stays active.
func (s *Store) Rename(ctx context.Context, account mail.Path, name, to string) error {
	if !engine.ValidScriptName(to) {
		return ErrName
	}
	return s.change(ctx, account, func(x *index) error {
		e, ok := x.Scripts[name]
		if !ok {
			return ErrNoScript
		}
		if _, taken := x.Scripts[to]; taken {
			return ErrExists
		}
		delete(x.Scripts, name)
		x.Scripts[to] = e
		if x.Active == name {
			x.Active = to
		}
		return nil
	})
}
