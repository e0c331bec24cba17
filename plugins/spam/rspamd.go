package spam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/plugins/internal/failover"
	"github.com/postern-mail/postern/sdk/mail"
)

// rspamd speaks its HTTP protocol: the message is the body of a POST to /checkv2, the
// envelope is in header fields, and the answer is JSON.
type rspamd struct {
	client     http.Client
	hostname   string
	password   string
	settingsID string
}

const (
	maxAnswer   = 1 << 20 // bytes of an answer
	maxFields   = 100     // header fields that an answer may add, and remove
	maxFieldLen = 8 << 10 // bytes of the value of one
	idleConns   = 32

	// maxRcpts bounds the recipients that rspamd is told, in bytes: it refuses requests with
	// a header above 80 KiB, and would so refuse a message to very many for ever.
	maxRcpts = 32 << 10
)

func newRspamd(hostname, settingsID string) *rspamd {
	return &rspamd{
		hostname: hostname, settingsID: settingsID,
		client: http.Client{
			Transport: &http.Transport{
				Proxy:                  nil, // never by the environment
				DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
				MaxIdleConnsPerHost:    idleConns,
				IdleConnTimeout:        30 * time.Second,
				DisableCompression:     true,
				WriteBufferSize:        8 << 10,
				MaxResponseHeaderBytes: 32 << 10,
			},
			// Nobody else is told about the message.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// check implements engine.
func (r *rspamd) check(ctx context.Context, address string, e *mail.Envelope, c content) (*result, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(address, "/")+"/checkv2", nil)
	if err != nil {
		return nil, err
	}
	var sent *upload
	req.GetBody = func() (io.ReadCloser, error) { // again, when an idle connection was gone
		f, err := c.open()
		if err != nil {
			return nil, err
		}
		sent = &upload{r: f}
		return sent, nil
	}
	if req.Body, err = req.GetBody(); err != nil {
		return nil, failover.Stop(err)
	}
	if req.ContentLength = c.size; c.size == 0 {
		req.Body.Close()
		req.Body = http.NoBody
	}
	r.facts(req.Header, e)
	resp, err := r.client.Do(req)
	if broken := sent.broken.Load(); broken != nil {
		err = failover.Stop(*broken)
	}
	if err != nil {
		return nil, plain(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("its answer breaks off: %w", plain(err))
	case len(b) > maxAnswer:
		return nil, errors.New("its answer is too long")
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers %d %.200q", resp.StatusCode, b)
	case sent.n.Load() != c.size:
		return nil, errors.New("it answers before it has the message")
	}
	return parseAnswer(b)
}

// plain is an error of HTTP without the URL, which the caller adds.
func plain(err error) error {
	var u interface{ Unwrap() error }
	if errors.As(err, &u) && strings.HasPrefix(err.Error(), "Post ") {
		return u.Unwrap()
	}
	return err
}

// upload counts what has been sent, and keeps the error of reading the message apart from
// those of the connection.
type upload struct {
	r      io.ReadCloser
	n      atomic.Int64
	broken atomic.Pointer[error]
}

// Read implements [io.Reader].
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.n.Add(int64(n))
	if err != nil && err != io.EOF {
		u.broken.Store(&err)
	}
	return n, err
}

// Close implements [io.Closer].
func (u *upload) Close() error { return u.r.Close() }

// facts tells rspamd of the envelope. Envelopes have no control characters.
func (r *rspamd) facts(h http.Header, e *mail.Envelope) {
	set := func(name, value string) {
		if value != "" {
			h[name] = append(h[name], value)
		}
	}
	set("From", "<"+e.ReversePath.String()+">")
	room := maxRcpts
	for _, rcpt := range e.Recipients {
		a := rcpt.Path.String()
		if room -= len(a); room < 0 {
			break
		}
		set("Rcpt", a)
	}
	if len(e.Recipients) == 1 {
		set("Deliver-To", e.Recipients[0].Path.String())
	}
	if e.Client.Addr.IsValid() {
		set("IP", e.Client.Addr.Unmap().String())
	}
	set("Helo", e.Client.Helo)
	set("Hostname", e.Client.Host)
	set("User", e.Client.User)
	set("Queue-Id", e.ID)
	set("MTA-Name", r.hostname)
	set("Settings-ID", r.settingsID)
	set("Password", r.password)
	set("User-Agent", "Postern")
}

// answer is the part of rspamd's JSON that is used. More is ignored: there is more with
// every version.
type answer struct {
	Action   *string                            `json:"action"`
	Score    *float64                           `json:"score"`
	Required *float64                           `json:"required_score"`
	Subject  string                             `json:"subject"`
	Symbols  map[string]struct{ Score float64 } `json:"symbols"`
	Messages json.RawMessage                    `json:"messages"`
	Milter   struct {
		Add    map[string]json.RawMessage `json:"add_headers"`
		Remove map[string]json.RawMessage `json:"remove_headers"`
	} `json:"milter"`
}

func parseAnswer(b []byte) (*result, error) {
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("its answer is not what rspamd says: %.100q", err.Error())
	}
	if a.Action == nil || a.Score == nil || a.Required == nil {
		return nil, errors.New("its answer has no action, no score or no required score")
	}
	act := slices.Index(actionNames(), *a.Action)
	if act < 0 {
		return nil, fmt.Errorf("its action %.50q is not known", *a.Action)
	}
	r := &result{action: action(act), score: *a.Score, required: *a.Required, subject: a.Subject}
	var messages struct {
		SMTP string `json:"smtp_message"`
	}
	if json.Unmarshal(a.Messages, &messages) == nil { // an empty one may be an array
		r.text = messages.SMTP
	}
	for _, name := range slices.Sorted(maps.Keys(a.Symbols)) {
		if len(r.symbols) < maxSymbols {
			r.symbols = append(r.symbols, symbolName(name))
		}
	}
	return r, a.fields(r)
}

// fields takes over what rspamd wants to add to and remove from the header.
func (a *answer) fields(r *result) error {
	for _, name := range slices.Sorted(maps.Keys(a.Milter.Remove)) {
		var ns []int
		raw := a.Milter.Remove[name]
		if len(raw) > 0 && raw[0] != '[' {
			raw = slices.Concat([]byte{'['}, raw, []byte{']'})
		}
		if err := json.Unmarshal(raw, &ns); err != nil {
			return errors.New("its list of header fields to remove is malformed")
		}
		for _, n := range ns {
			r.remove = append(r.remove, removal{name, n})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Milter.Add)) {
		raw := a.Milter.Add[name]
		if len(raw) > 0 && raw[0] != '[' {
			raw = slices.Concat([]byte{'['}, raw, []byte{']'})
		}
		var values []fieldValue
		if err := json.Unmarshal(raw, &values); err != nil {
			return errors.New("its list of header fields to add is malformed")
		}
		for _, v := range values {
			f := headerField{name, cleanValue(name, v.Value), v.Order < 0}
			if _, err := mail.FormatField(f.name, f.value); err != nil || len(f.name) > 100 {
				return fmt.Errorf("it adds a header field that is none: %.100q", name)
			}
			r.add = append(r.add, f)
		}
	}
	if len(r.add) > maxFields || len(r.remove) > maxFields {
		return errors.New("it adds or removes too many header fields")
	}
	return nil
}

// fieldValue is a value alone, or one with its place.
type fieldValue struct {
	Value string
	Order int
}

// UnmarshalJSON implements [json.Unmarshaler].
func (v *fieldValue) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &v.Value) == nil {
		return nil
	}
	type object fieldValue
	return json.Unmarshal(b, (*object)(v))
}
