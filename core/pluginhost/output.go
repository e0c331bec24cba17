package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

const (
	maxLine   = 4 << 10 // bytes of one line that are logged
	tailSize  = 8 << 10 // bytes of the last output that are kept, for the report of a death
	lineRate  = 20      // lines a second that are logged, in the long run
	lineBurst = 200     // and at once
)

// output takes what a plugin writes to its standard error, and to its standard output
// where that is no handshake, into the log. It takes everything at once, so the plugin never
// waits, and logs no more than its share.
type output struct {
	log    *slog.Logger
	limit  *rate.Limiter
	now    func() time.Time
	stream string

	mu      sync.Mutex
	line    []byte // the beginning of an unfinished line
	long    bool   // the rest of the line is being thrown away
	dropped int    // lines not logged since the last one that was
	tail    []byte
}

func newOutput(log *slog.Logger, limit *rate.Limiter, now func() time.Time, stream string) *output {
	return &output{log: log, limit: limit, now: now, stream: stream}
}

// Write never fails and never blocks for longer than the log does.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep(p)
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if room := maxLine - len(o.line); len(part) > room {
			part, o.long = part[:room], true
		}
		o.line = append(o.line, part...)
		if i < 0 {
			break
		}
		o.flush()
		p = p[i+1:]
	}
	return n, nil
}

// Close logs what had no line end.
func (o *output) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.line) > 0 {
		o.flush()
	}
	if o.dropped > 0 {
		o.log.Warn("plugin log lines dropped", "stream", o.stream, "lines", o.dropped)
		o.dropped = 0
	}
}

// last returns the end of what was written, for people.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(o.tail), "?"))
}

func (o *output) keep(p []byte) {
	if len(p) >= tailSize {
		o.tail = append(o.tail[:0], p[len(p)-tailSize:]...)
		return
	}
	if over := len(o.tail) + len(p) - tailSize; over > 0 {
		o.tail = o.tail[:copy(o.tail, o.tail[over:])]
	}
	o.tail = append(o.tail, p...)
}

func (o *output) flush() {
	line, long := bytes.TrimRight(o.line, "\r"), o.long
	o.line, o.long = o.line[:0], false
	if len(line) == 0 {
		return
	}
	if !o.limit.AllowN(o.now(), 1) {
		o.dropped++
		return
	}
	if o.dropped > 0 {
		o.log.Warn("plugin log lines dropped", "stream", o.stream, "lines", o.dropped)
		o.dropped = 0
	}
	if !long && line[0] == '{' && o.structured(line) {
		return
	}
	attrs := []any{"stream", o.stream, "text", printable(string(line))}
	if long {
		attrs = append(attrs, "cut", true)
	}
	o.log.Info("plugin output", attrs...)
}

// structured logs a line that slog's JSON handler made, as the SDK's does.
func (o *output) structured(line []byte) bool {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		return false
	}
	msg, ok := fields["msg"].(string)
	var level slog.Level
	name, _ := fields["level"].(string)
	if !ok || level.UnmarshalText([]byte(name)) != nil {
		return false
	}
	var attrs []any
	for k, v := range fields {
		switch k {
		case "time", "level", "msg":
			continue
		}
		if s, ok := v.(string); ok {
			v = printable(s)
		}
		attrs = append(attrs, slog.Any(printable(k), v))
	}
	o.log.Log(context.Background(), level, "plugin log", "text", printable(msg), slog.Group("fields", attrs...))
	return true
}

// printable takes the control characters out of text that is to be logged or shown.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r != ' ' && r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
