package sieve

import (
	"container/list"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/postern-mail/postern/plugins/sieve/engine"
)

// cacheSize bounds the texts of the scripts that are kept compiled, in bytes. What is made of
// them takes some times as much.
const cacheSize = 4 << 20

// perScript is what a script counts beside its text, in bytes.
const perScript = 512

// cache keeps scripts compiled, by the hash of their text: those used last.
type cache struct {
	options engine.Options
	limit   int

	mu    sync.Mutex
	size  int
	order *list.List // of *cached, that used last at the front
	known map[string]*list.Element
}

// cached is a script, or why it does not compile.
type cached struct {
	hash   string
	size   int
	script *engine.Script
	err    error
}

func newCache(o engine.Options) *cache {
	return &cache{options: o, limit: cacheSize, order: list.New(), known: make(map[string]*list.Element)}
}

// get returns the script with a hash; text is called for that of one which is not there.
func (c *cache) get(hash string, text func() ([]byte, error)) (*engine.Script, error) {
	c.mu.Lock()
	if e, ok := c.known[hash]; ok {
		c.order.MoveToFront(e)
		found := e.Value.(*cached)
		c.mu.Unlock()
		return found.script, found.err
	}
	c.mu.Unlock()
	src, err := text()
	if err != nil {
		return nil, err
	}
	made := &cached{hash: hash, size: len(src) + perScript}
	made.script, made.err = engine.Compile(src, c.options)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[hash]; !ok {
		c.known[hash] = c.order.PushFront(made)
		c.size += made.size
	}
	for c.size > c.limit && c.order.Len() > 1 {
		last := c.order.Back()
		old := c.order.Remove(last).(*cached)
		delete(c.known, old.hash)
		c.size -= old.size
	}
	return made.script, made.err
}

// files are the scripts of the admin. A file that has changed is read again, soon; while it has faults, the
// script that it had before stays in force.
type files struct {
	compiled *cache
	clock    func() time.Time

	mu   sync.Mutex
	open map[string]*file
}

type file struct {
	looked   time.Time
	modified time.Time
	size     int64
	script   *engine.Script
	hash     string
	err      error // of the last look
	told     bool  // somebody knows of err
}

// fileAge is for how long nobody looks whether a file has changed.
const fileAge = 5 * time.Second

func newFiles(c *cache, clock func() time.Time) *files {
	return &files{compiled: c, clock: clock, open: make(map[string]*file)}
}

// load returns the script in a file. With a script the error is why it is an older one.
func (f *files) load(name string) (*engine.Script, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.open[name]
	if e == nil {
		e = &file{}
		f.open[name] = e
	}
	if now := f.clock(); e.looked.IsZero() || now.Sub(e.looked) >= fileAge || now.Before(e.looked) {
		e.looked = now
		err := f.refresh(name, e)
		e.told = e.told && err != nil
		e.err = err
	}
	if e.script == nil && e.err == nil {
		e.err = fmt.Errorf("%s: there is no script", name)
	}
	return e.script, e.err
}

func (f *files) refresh(name string, e *file) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if st.ModTime().Equal(e.modified) && st.Size() == e.size {
		return e.err
	}
	text, err := readScript(name)
	if err != nil {
		return err
	}
	hash := hashOf(text)
	script, err := f.compiled.get(hash, func() ([]byte, error) { return text, nil })
	e.modified, e.size = st.ModTime(), st.Size()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	e.script, e.hash = script, hash
	return nil
}

// maxFile bounds the admin's scripts, in bytes.
const maxFile = 1 << 20

var errFileSize = errors.New("the script is larger than 1 MiB")

func readScript(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s: %w", name, errFileSize)
	}
	return os.ReadFile(name)
}

// tell reports whether it has to be told now that a file cannot be used: once for each look.
func (f *files) tell(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.open[name]
	if e == nil || e.err == nil || e.told {
		return false
	}
	e.told = true
	return true
}
