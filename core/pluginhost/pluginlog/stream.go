package pluginlog

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
)

// A Stream takes what a process writes to its standard error, or to its standard output
// where that is no handshake. It takes everything at once, so the plugin never waits.
type Stream struct {
	log  *Log
	name string

	mu      sync.Mutex
	line    []byte // the beginning of an unfinished line
	long    bool   // the rest of the line is being thrown away
	dropped int    // lines not logged since the last one that was
	tail    []byte
}

// Write never fails and never blocks for longer than the log does.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(p)
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if room := maxLine - len(s.line); len(part) > room {
			part, s.long = part[:room], true
		}
		s.line = append(s.line, part...)
		if i < 0 {
			break
		}
		s.flush()
		p = p[i+1:]
	}
	return n, nil
}

// Close logs what had no line end.
func (s *Stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.line) > 0 {
		s.flush()
	}
	if s.dropped > 0 {
		s.log.out.Warn("plugin log lines dropped", "stream", s.name, "lines", s.dropped)
		s.dropped = 0
	}
}

// Last returns the end of what was written, for people.
func (s *Stream) Last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(s.tail), "?"))
}

func (s *Stream) keep(p []byte) {
	if len(p) >= tailSize {
		s.tail = append(s.tail[:0], p[len(p)-tailSize:]...)
		return
	}
	if over := len(s.tail) + len(p) - tailSize; over > 0 {
		s.tail = s.tail[:copy(s.tail, s.tail[over:])]
	}
	s.tail = append(s.tail, p...)
}

func (s *Stream) flush() {
	line, long := bytes.TrimRight(s.line, "\r"), s.long
	s.line, s.long = s.line[:0], false
	if len(line) == 0 {
		return
	}
	if !s.log.room() {
		s.dropped++
		return
	}
	if s.dropped > 0 {
		s.log.out.Warn("plugin log lines dropped", "stream", s.name, "lines", s.dropped)
		s.dropped = 0
	}
	if !long && line[0] == '{' && s.structured(line) {
		return
	}
	attrs := []any{"stream", s.name, "text", Printable(string(line))}
	if long {
		attrs = append(attrs, "cut", true)
	}
	s.log.out.Info("plugin output", attrs...)
}

// structured logs a line that slog's JSON handler made, as the SDK's does.
func (s *Stream) structured(line []byte) bool {
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
		if text, ok := v.(string); ok {
			v = Printable(text)
		}
		attrs = append(attrs, slog.Any(Printable(k), v))
	}
	s.log.out.Log(context.Background(), level, "plugin log", "text", Printable(msg), slog.Group("fields", attrs...))
	return true
}
