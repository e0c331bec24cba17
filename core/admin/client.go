package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// Client talks to the running gateway over its control socket.
type Client struct{ http *http.Client }

// Dial returns a Client for the socket at path, or an error when nobody answers there.
func Dial(ctx context.Context, path string) (*Client, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
	}
	conn, err := dial(ctx, "", "")
	if err != nil {
		return nil, err
	}
	conn.Close()
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

// List is [Queue.List].
func (c *Client) List(ctx context.Context, class string, yield func(Recipient) bool) error {
	body, err := c.do(ctx, "GET", "/queue?class="+url.QueryEscape(class), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Recipient
			Error string `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return err
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
		if !yield(line.Recipient) {
			return nil
		}
	}
	return lines.Err()
}

// Show is [Queue.Show].
func (c *Client) Show(ctx context.Context, id string) (ms []Message, err error) {
	err = c.get(ctx, "/queue/"+url.PathEscape(id), &ms)
	return ms, err
}

// Summary is [Queue.Summary].
func (c *Client) Summary(ctx context.Context) (causes []Cause, err error) {
	err = c.get(ctx, "/queue/summary", &causes)
	return causes, err
}

// Change is [Queue.Change].
func (c *Client) Change(ctx context.Context, change Change, s Selection) (int, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return 0, err
	}
	var n struct{ Changed int }
	err = c.call(ctx, "POST", "/queue/"+string(change), bytes.NewReader(b), &n)
	return n.Changed, err
}

// Story returns what the gateway remembers of a message.
func (c *Client) Story(ctx context.Context, id string) (events []trace.Event, err error) {
	err = c.get(ctx, "/trace/"+url.PathEscape(id), &events)
	return events, err
}

// Status returns what the gateway says of itself.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.get(ctx, "/status", &s)
	return s, err
}

// Submit hands a message to the gateway.
func (c *Client) Submit(ctx context.Context, from mail.Path, to []mail.Path, message io.Reader) (s Submission, err error) {
	q := url.Values{"from": {from.String()}}
	for _, t := range to {
		q.Add("to", t.String())
	}
	err = c.call(ctx, "POST", "/messages?"+q.Encode(), message, &s)
	return s, err
}

func (c *Client) get(ctx context.Context, path string, v any) error {
	return c.call(ctx, "GET", path, nil, v)
}

func (c *Client) call(ctx context.Context, method, path string, body io.Reader, v any) error {
	r, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer r.Close()
	return json.NewDecoder(r).Decode(v)
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://postern/api/v1"+path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	if res.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s%w", strings.TrimSuffix(strings.TrimSpace(string(text)), ErrNotFound.Error()), ErrNotFound)
	}
	return nil, errors.New(strings.TrimSpace(string(text)))
}
