package local

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// Content is where bodies are that are too large for the log.
type Content interface {
	// Path is where the content called name is.
	Path(name string) string
	// Verify returns an error that wraps mail.ErrBodyDamaged when the content that b refers
	// to is missing or altered, and another error when it cannot be read now.
	Verify(b mail.Body) error
	Remove(name string) error
	SetAside(name, reason string) error
	// Sweep removes, or with damaged set puts aside, what keep does not claim.
	Sweep(keep func(name string) bool, damaged bool) (int, error)
}

// Options for Open. Zero values mean the defaults.
type Options struct {
	Dir         string
	Content     Content
	FS          disk.FS
	Clock       func() time.Time     // wall clock; time.Now
	Elapsed     func() time.Duration // time since some moment, which never jumps; by Clock's monotonic readings
	Backoff     queue.Backoff        // queue.DefaultBackoff
	Lease       time.Duration        // how long a lease holds; 10 minutes
	SegmentSize int64                // a segment ends at about this size; 64 MiB
	Cache       int                  // bytes of fresh entries kept in memory; 32 MiB
	FeedLimit   int64                // bytes of log kept for followers that lie behind; 1 GiB
	Log         *slog.Logger
}

func (o *Options) defaults() error {
	if o.Dir == "" || o.Content == nil {
		return errors.New("queue: no directory or no content store")
	}
	if o.FS == nil {
		o.FS = disk.OS{}
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Backoff == (queue.Backoff{}) {
		o.Backoff = queue.DefaultBackoff()
	}
	if o.Lease == 0 {
		o.Lease = 10 * time.Minute
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	if o.Cache == 0 {
		o.Cache = 32 << 20
	}
	if o.FeedLimit == 0 {
		o.FeedLimit = 1 << 30
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if b := o.Backoff; b.First <= 0 || b.Max < b.First || b.Factor < 1 || b.Jitter < 0 || b.Jitter >= 1 {
		return fmt.Errorf("queue: back-off %+v makes no sense", b)
	}
	if o.SegmentSize < 1024 || o.SegmentSize > 1<<30 || o.Lease < 0 || o.Cache < 0 {
		return errors.New("queue: segment size, lease or cache is out of range")
	}
	return nil
}

// Store is the queue in a directory.
type Store struct {
	o        Options
	lock     io.Closer
	changed  chan struct{}
	requests chan *request
	written  chan struct{} // closed when the writer has ended
	tidy     chan struct{} // wakes the janitor
	tidied   chan struct{} // closed when the janitor has ended
	stop     chan struct{}

	pool   sync.Pool    // of *request
	life   sync.RWMutex // held for reading by everything that commits
	closed bool

	mu      sync.Mutex
	x       index
	garbage []string // content files that nothing refers to any more
	damaged bool     // something was set aside since the start
	cursors []*cursor

	// The rest belongs to the writer.
	current    *segment // nil: the last one failed
	prev       sealed   // what the next segment says of the one before
	lastNumber uint32
	seq        uint64
	buf        []byte
	patience   time.Duration // how long to insist that a refusal becomes durable
}

var _ queue.Store = (*Store)(nil)

var errClosed = errors.New("queue: closed")

// Open locks the directory, reads the log, and is then ready for use. It returns an error
// that wraps [queue.ErrLocked] when another process has the queue. Damage is set aside and
// logged, and is no error.
func Open(o Options) (*Store, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	if err := o.FS.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	if err := o.FS.SyncDir(filepath.Dir(o.Dir)); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	lock, err := o.FS.Lock(o.Dir)
	if errors.Is(err, disk.ErrLocked) {
		return nil, fmt.Errorf("%w: %w", queue.ErrLocked, err)
	}
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	c := clock{now: o.Clock, elapsed: o.Elapsed, start: o.Clock()}
	s := &Store{
		o: o, lock: lock, x: newIndex(c, o.Backoff.Max, o.Cache),
		changed: make(chan struct{}, 1), requests: make(chan *request, 256), written: make(chan struct{}),
		tidy: make(chan struct{}, 1), tidied: make(chan struct{}), stop: make(chan struct{}),
		patience: 5 * time.Second,
	}
	err = s.openCursors()
	if err == nil {
		err = s.replay()
	}
	if err != nil {
		s.closeFiles()
		return nil, fmt.Errorf("queue: open %s: %w", o.Dir, err)
	}
	go s.write()
	go s.janitor()
	s.signal()
	return s, nil
}

// signal tells that something may be due.
func (s *Store) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Changed implements queue.Store.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Close implements queue.Store.
func (s *Store) Close() error {
	s.life.Lock()
	if s.closed {
		s.life.Unlock()
		return nil
	}
	s.closed = true
	s.life.Unlock()
	close(s.stop)
	<-s.tidied
	close(s.requests)
	<-s.written
	// A last, empty segment says how far the one before goes: what is missing there at
	// the next start is damage and not the mark of a crash.
	var err error
	if s.current != nil && s.current.size > firstFrame {
		s.seal()
		err = s.startSegment(s.o.Clock())
	}
	return errors.Join(err, s.closeFiles())
}

func (s *Store) closeFiles() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, seg := range s.x.segs {
		errs = append(errs, seg.file.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Commit implements queue.Store. Once the batch is in the writer's hands its outcome is
// waited for, whatever becomes of ctx: nobody is told "no" about what will be durable.
func (s *Store) Commit(ctx context.Context, b queue.Batch) error {
	if len(b.Add)+len(b.Results)+len(b.Remember) == 0 {
		return nil
	}
	r := s.newRequest()
	defer s.free(r)
	for i := range b.Add {
		if err := checkAdd(&b.Add[i]); err != nil {
			return err
		}
		r.add(itemAdd, b.Add[i].Entry, b.Add[i].Records)
	}
	for i := range b.Results {
		if err := checkResult(&b.Results[i]); err != nil {
			return err
		}
		r.result(b.Results[i], 0, loc{})
	}
	for _, m := range b.Remember {
		r.mark(hashKey(m.Key), timeToInt(m.Until))
	}
	if err := s.submit(ctx, r); err != nil {
		return fmt.Errorf("queue: commit: %w", err)
	}
	return nil
}

func checkResult(r *queue.Result) error {
	if r.Recipient < 0 || r.Recipient >= maxRecipients {
		return fmt.Errorf("queue: recipient %d of %s: %w", r.Recipient, r.ID, queue.ErrGone)
	}
	if r.Record.State < queue.Pending || r.Record.State > queue.Replaced {
		return fmt.Errorf("queue: result for %s without a state", r.ID)
	}
	return nil
}

func hashKey(key string) [16]byte {
	h := sha256.Sum256([]byte(key))
	return [16]byte(h[:16])
}

// Remembered implements queue.Store.
func (s *Store) Remembered(_ context.Context, key string, now time.Time) (bool, error) {
	k := hashKey(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.x.marks[k]
	return ok && m.until > timeToInt(now), nil
}
