package dmarcreport

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a journal.
const (
	maxFile   = 64 << 20 // bytes of a day
	maxLine   = 64 << 10
	maxAge    = 7 // days that are kept
	syncAfter = 2 * time.Second
	maxRows   = 100_000 // of the reports of a day
)

const (
	dayForm    = time.DateOnly
	dataSuffix = ".jsonl"
	sentSuffix = ".sent"
)

// ErrFull says that there is no room for more observations of this day.
var ErrFull = errors.New("the data for DMARC reports of today is at its limit")

// Journal keeps observations in files. It is safe for concurrent use.
type Journal struct {
	dir string

	mu    sync.Mutex
	day   string
	f     *os.File
	dirty bool
}

// Open opens the journal in a folder, which is made if it is not there.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Journal{dir: dir}, nil
}

// Add writes an observation down.
func (j *Journal) Add(now time.Time, o Observation) error {
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if len(line) >= maxLine {
		return errors.New("an observation is too long")
	}
	line = append(line, '\n')
	j.mu.Lock()
	defer j.mu.Unlock()
	if day := now.UTC().Format(dayForm); day != j.day || j.f == nil {
		if err := j.begin(day, now); err != nil {
			return err
		}
	}
	fi, err := j.f.Stat() // of all processes
	if err != nil {
		return err
	}
	if fi.Size()+int64(len(line)) > maxFile {
		return ErrFull
	}
	if _, err := j.f.Write(line); err != nil {
		return err
	}
	if !j.dirty {
		j.dirty = true
		time.AfterFunc(syncAfter, func() { j.Sync() })
	}
	return nil
}

// begin opens the file of a day, and removes those that are too old.
func (j *Journal) begin(day string, now time.Time) error {
	f, err := os.OpenFile(filepath.Join(j.dir, day+dataSuffix), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if j.f != nil {
		j.f.Sync()
		j.f.Close()
	}
	j.f, j.day, j.dirty = f, day, false
	j.expire(now)
	return nil
}

// Sync makes durable what was written.
func (j *Journal) Sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.dirty {
		return nil
	}
	j.dirty = false
	return j.f.Sync()
}

// Close syncs and closes the journal.
func (j *Journal) Close() error {
	err := j.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f != nil {
		err = errors.Join(err, j.f.Close())
		j.f = nil
	}
	return err
}

// expire removes the files of days that are too long ago.
func (j *Journal) expire(now time.Time) {
	for _, day := range j.days() {
		if start, err := time.Parse(dayForm, day); err == nil && now.Sub(start) > maxAge*24*time.Hour {
			j.Remove(day)
		}
	}
}

// days are those that there is data of, in order.
func (j *Journal) days() []string {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		day, ok := strings.CutSuffix(e.Name(), dataSuffix)
		if _, err := time.Parse(dayForm, day); ok && err == nil {
			out = append(out, day)
		}
	}
	return out
}

// Finished are the days before today of which there is data, in order.
func (j *Journal) Finished(now time.Time) []string {
	today := now.UTC().Format(dayForm)
	return slices.DeleteFunc(j.days(), func(d string) bool { return d >= today })
}

// Remove removes a day's data.
func (j *Journal) Remove(day string) error {
	err := os.Remove(filepath.Join(j.dir, day+dataSuffix))
	if serr := os.Remove(filepath.Join(j.dir, day+sentSuffix)); !errors.Is(serr, fs.ErrNotExist) {
		err = errors.Join(err, serr)
	}
	return err
}

// Reports makes the reports of a day, by policy domain, in order.
func (j *Journal) Reports(day string) ([]*Report, error) {
	start, err := time.Parse(dayForm, day)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(j.dir, day+dataSuffix))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	byDomain := make(map[string]*Report)
	rows := 0
	lines := bufio.NewReaderSize(f, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF {
			break // what has no end is torn
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		var o Observation
		if json.Unmarshal(line, &o) != nil || o.Published.Domain == "" {
			continue // torn by a crash or a full disk
		}
		r := byDomain[o.Published.Domain]
		if r == nil {
			r = &Report{Begin: start, End: start.Add(24*time.Hour - time.Second), rows: make(map[Row]int)}
			byDomain[o.Published.Domain] = r
		}
		r.Published, r.Reports = o.Published, o.Reports
		if _, ok := r.rows[o.Row]; !ok {
			if rows == maxRows {
				r.dropped++
				continue
			}
			rows++
		}
		r.rows[o.Row]++
	}
	var out []*Report
	for _, r := range byDomain {
		if len(r.rows) > 0 {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *Report) int { return strings.Compare(a.Published.Domain, b.Published.Domain) })
	return out, nil
}

// Sent are the policy domains whose reports of a day are done.
func (j *Journal) Sent(day string) (map[string]bool, error) {
	text, err := os.ReadFile(filepath.Join(j.dir, day+sentSuffix))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := make(map[string]bool)
	for line := range bytes.Lines(text) {
		if d, ok := bytes.CutSuffix(line, []byte("\n")); ok {
			out[string(d)] = true
		}
	}
	return out, nil
}

// MarkSent notes durably that the report for a domain is done.
func (j *Journal) MarkSent(day, domain string) error {
	f, err := os.OpenFile(filepath.Join(j.dir, day+sentSuffix), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(domain + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}
