package pluginlog

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// logged returns a log whose clock stands still, and what is in it.
func logged() (*Log, *bytes.Buffer) {
	var b bytes.Buffer
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	out := slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug - 8, ReplaceAttr: noTime}))
	return New(out, "p", func() time.Time { return time.Time{} }), &b
}

// A plugin cannot say what only the gateway says, nor anything that a terminal obeys.
func TestSay(t *testing.T) {
	l, b := logged()
	l.Say(context.Background(), 100, "a\x1b[2Jb", map[string]string{"plugin": "other\r", strings.Repeat("k", 100): strings.Repeat("v", 5000)})
	for _, want := range []string{`"level":"ERROR","msg":"plugin says","plugin":"p","text":"a?[2Jb","fields":{`, `"plugin":"other?"`, `"` + strings.Repeat("k", 64) + `":"` + strings.Repeat("v", 4096) + `"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
}

// All that a process says together is no more than its share, and who left something out says so.
func TestShare(t *testing.T) {
	l, b := logged()
	out, errs := l.Stream("stdout"), l.Stream("stderr")
	for range lineBurst / 4 {
		out.Write([]byte("a\nb"))
		out.Write([]byte("b\n"))
		errs.Write([]byte("x\n"))
		l.Say(context.Background(), 0, "y", nil)
	}
	if n := strings.Count(b.String(), "\n"); n != lineBurst || strings.Count(b.String(), `"stream":"stdout","text":"bb"`) != lineBurst/4 {
		t.Fatalf("%d lines: %s", n, b)
	}
	for range 3 {
		l.Say(context.Background(), 0, "y", nil)
		l.Error("z")
		errs.Write([]byte("x\n"))
	}
	errs.Write([]byte("the end"))
	errs.Close()
	out.Close()
	if strings.Count(b.String(), "\n") != lineBurst+1 || !strings.Contains(b.String(), `"plugin log lines dropped","plugin":"p","stream":"stderr","lines":4`) {
		t.Errorf("the last lines are %s", b.String()[b.Len()-300:])
	}
	if errs.Last() != strings.Repeat("x\n", lineBurst/4+3)+"the end" {
		t.Errorf("the last words are %q", errs.Last())
	}
}

// However long a line or the whole output is, no more than its limit is logged and kept.
func TestLongLines(t *testing.T) {
	l, b := logged()
	s := l.Stream("stderr")
	for range 10 {
		s.Write(bytes.Repeat([]byte("x"), maxLine-1))
	}
	s.Write([]byte("\nnext\n"))
	if !strings.Contains(b.String(), `"text":"`+strings.Repeat("x", maxLine)+`","cut":true`) || !strings.Contains(b.String(), `"text":"next"}`) {
		t.Error(b)
	}
	if n := len(s.Last()); n != tailSize-1 { // without the last line end
		t.Errorf("%d bytes are kept", n)
	}
}
