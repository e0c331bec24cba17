package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// maxHeldLine bounds a line of the list: a header field may be long.
const maxHeldLine = 4 << 20

func (s *Server) routeQuarantine(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/quarantine", s.quarantine)
	mux.HandleFunc("GET /api/v1/quarantine/{id}", s.showQuarantined)
	mux.HandleFunc("POST /api/v1/quarantine/{change}", s.changeQuarantined)
}

func (s *Server) quarantine(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	search := Search{Text: v.Get("text"), From: v.Get("from"), Recipient: v.Get("recipient"), Plugin: v.Get("plugin")}
	if since := v.Get("since"); since != "" {
		t, err := time.Parse(time.RFC3339Nano, since)
		if err != nil {
			http.Error(w, "since: "+err.Error(), http.StatusBadRequest)
			return
		}
		search.Since = t
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	err := s.queue.Quarantine(r.Context(), search, func(h Quarantined) bool { return enc.Encode(h) == nil })
	if err != nil { // too late for a status code: say it in a last line
		enc.Encode(map[string]string{"error": err.Error()})
	}
}

func (s *Server) showQuarantined(w http.ResponseWriter, r *http.Request) {
	hs, err := s.queue.ShowQuarantined(r.Context(), r.PathValue("id"))
	s.reply(w, hs, err)
}

func (s *Server) changeQuarantined(w http.ResponseWriter, r *http.Request) {
	var sel Selection
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&sel); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if sel.All || len(sel.IDs) == 0 {
		http.Error(w, "name queue ids", http.StatusBadRequest)
		return
	}
	n, err := s.queue.ChangeQuarantined(r.Context(), Change(r.PathValue("change")), sel.IDs)
	s.reply(w, map[string]int{"changed": n}, err)
}

// Quarantine is [Queue.Quarantine].
func (c *Client) Quarantine(ctx context.Context, s Search, yield func(Quarantined) bool) error {
	v := url.Values{"text": {s.Text}, "from": {s.From}, "recipient": {s.Recipient}, "plugin": {s.Plugin}}
	if !s.Since.IsZero() {
		v.Set("since", s.Since.Format(time.RFC3339Nano))
	}
	body, err := c.do(ctx, "GET", "/quarantine?"+v.Encode(), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxHeldLine)
	for lines.Scan() {
		var line struct {
			Quarantined
			Error string `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("the gateway's answer: %w", err)
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
		if !yield(line.Quarantined) {
			return nil
		}
	}
	return lines.Err()
}

// ShowQuarantined is [Queue.ShowQuarantined].
func (c *Client) ShowQuarantined(ctx context.Context, id string) (hs []Quarantined, err error) {
	err = c.get(ctx, "/quarantine/"+url.PathEscape(id), &hs)
	return hs, err
}

// ChangeQuarantined is [Queue.ChangeQuarantined].
func (c *Client) ChangeQuarantined(ctx context.Context, change Change, ids []string) (int, error) {
	b, err := json.Marshal(Selection{IDs: ids})
	if err != nil {
		return 0, err
	}
	var n struct{ Changed int }
	err = c.call(ctx, "POST", "/quarantine/"+string(change), bytes.NewReader(b), &n)
	return n.Changed, err
}
