package spam

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/postern-mail/postern/plugins/internal/failover"
	"github.com/postern-mail/postern/sdk/mail"
)

// spamd speaks the protocol of SpamAssassin: SYMBOLS, whose answer has the verdict, the
// scores and the names of the rules.
type spamd struct {
	user    string
	writers sync.Pool // *bufio.Writer
}

// maxSpamd is the length of an answer, in bytes.
const maxSpamd = 64 << 10

// writeSize is how much is written at once, in bytes: most messages go in one piece.
const writeSize = 32 << 10

// errEngineTime says that the engine itself ran out of time.
var errEngineTime = fmt.Errorf("it gave up: %w", context.DeadlineExceeded)

// check implements engine.
func (s *spamd) check(ctx context.Context, address string, e *mail.Envelope, c content) (*result, error) {
	conn, err := failover.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r, err := c.open()
	if err != nil {
		return nil, failover.Stop(err)
	}
	defer r.Close()
	// SpamAssassin learns the reverse-path from a field that is added at final delivery.
	envelope := "Return-Path: <" + e.ReversePath.String() + ">\r\n"
	head := fmt.Sprintf("SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\n", int64(len(envelope))+c.size)
	if s.user != "" {
		head += "User: " + s.user + "\r\n"
	}
	w, _ := s.writers.Get().(*bufio.Writer)
	if w == nil {
		w = bufio.NewWriterSize(nil, writeSize)
	}
	defer s.writers.Put(w)
	w.Reset(conn) // which forgets an earlier error, too
	w.WriteString(head + "\r\n" + envelope)
	in := &upload{r: r}
	if _, err = w.ReadFrom(in); err == nil {
		err = w.Flush()
	}
	if broken := in.broken.Load(); broken != nil {
		return nil, failover.Stop(*broken)
	}
	if err != nil {
		return nil, err
	}
	// It reads lines: without this it would wait for the end of the last one.
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(conn, maxSpamd+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxSpamd:
		return nil, errors.New("its answer is too long")
	}
	return parseSpamd(b)
}

var (
	spamdStatus  = regexp.MustCompile(`^SPAMD/\d{1,2}\.\d{1,2} (\d{1,3}) ([ -~]{1,100})$`)
	spamdVerdict = regexp.MustCompile(`^(True|False) ; (-?\d{1,10}(?:\.\d{1,10})?) / (-?\d{1,10}(?:\.\d{1,10})?)$`)
)

// exTimeout is the code that spamd answers when its children took too long.
const exTimeout = "79"

// parseSpamd understands the answer to SYMBOLS: a status line, fields, a blank line, and as
// many bytes of names as a field says.
func parseSpamd(b []byte) (*result, error) {
	first, rest, _ := bytes.Cut(b, []byte("\r\n"))
	status := spamdStatus.FindSubmatch(first)
	switch {
	case status == nil:
		return nil, fmt.Errorf("it says %.100q", first)
	case string(status[1]) == exTimeout:
		return nil, errEngineTime
	case string(status[1]) != "0":
		return nil, fmt.Errorf("it fails with %s", status[2])
	}
	head, body, ok := bytes.Cut(rest, []byte("\r\n\r\n"))
	if !ok {
		return nil, errors.New("its answer breaks off")
	}
	var r *result
	length := -1
	for line := range strings.SplitSeq(string(head), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "spam":
			v := spamdVerdict.FindStringSubmatch(value)
			if v == nil || r != nil {
				return nil, fmt.Errorf("it says %.100q", line)
			}
			r = &result{scoreOnly: true, score: number(v[2]), required: number(v[3])}
			if v[1] == "True" {
				r.action = addHeader
			}
		case "content-length":
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil || length >= 0 {
				return nil, fmt.Errorf("it says %.100q", line)
			}
			length = int(n)
		}
	}
	if r == nil || length != len(body) {
		return nil, errors.New("its answer is not complete")
	}
	for _, name := range strings.FieldsFunc(string(body), func(c rune) bool { return c == ',' || c <= ' ' }) {
		if len(r.symbols) < maxSymbols {
			r.symbols = append(r.symbols, symbolName(name))
		}
	}
	return r, nil
}

// number parses what the pattern let through.
func number(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return math.MaxInt32 // cannot be; and if it were it would not pass
	}
	return f
}
