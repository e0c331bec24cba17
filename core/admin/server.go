package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// Submission is the outcome of a message submitted through the control socket.
type Submission struct {
	ID    string      `json:"id"`
	Reply mail.Status `json:"reply"`
}

// Status is what a running gateway says of itself.
type Status struct {
	Version   string    `json:"version"`
	Pid       int       `json:"pid"`
	Started   time.Time `json:"started"`
	Listeners []string  `json:"listeners"`
	Plugins   []Plugin  `json:"plugins"`
	InFlight  int       `json:"in_flight"` // delivery attempts under way
}

// Plugin is one plugin process.
type Plugin struct {
	Name     string `json:"name"`
	Pid      int    `json:"pid"`
	State    string `json:"state"`
	Restarts int    `json:"restarts"`
}

// Backend is what the server needs of the gateway beside its queue.
type Backend interface {
	// Submit takes a message as a client on the control socket: local and trusted.
	Submit(ctx context.Context, from mail.Path, to []mail.Path, message io.Reader) (Submission, error)
	// Story returns what is known of a message.
	Story(id string) []trace.Event
	Status() Status
	Plugins
}

// Server offers a gateway's controls over HTTP on a unix socket that only its own user can
// open: whoever can connect may do everything.
type Server struct {
	queue   *Queue
	backend Backend
	log     *slog.Logger
	http    *http.Server
}

// NewServer returns a Server; Serve starts it.
func NewServer(q *Queue, b Backend, log *slog.Logger) *Server {
	s := &Server{queue: q, backend: b, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/queue", s.list)
	mux.HandleFunc("GET /api/v1/queue/summary", s.summary)
	mux.HandleFunc("GET /api/v1/queue/{id}", s.show)
	mux.HandleFunc("POST /api/v1/queue/{change}", s.change)
	mux.HandleFunc("POST /api/v1/messages", s.submit)
	mux.HandleFunc("GET /api/v1/trace/{id}", s.story)
	mux.HandleFunc("GET /api/v1/status", s.status)
	s.routePlugins(mux, b)
	s.routeQuarantine(mux)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	return s
}

// Listen opens the control socket at path, in place of one that a dead gateway left: the
// caller holds the data directory's lock.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Serve answers until Close.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close stops at once.
func (s *Server) Close() error { return s.http.Close() }

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	err := s.queue.List(r.Context(), r.URL.Query().Get("class"), func(x Recipient) bool { return enc.Encode(x) == nil })
	if err != nil { // too late for a status code: say it in a last line
		enc.Encode(map[string]string{"error": err.Error()})
	}
}

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	causes, err := s.queue.Summary(r.Context())
	s.reply(w, causes, err)
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	ms, err := s.queue.Show(r.Context(), r.PathValue("id"))
	s.reply(w, ms, err)
}

func (s *Server) change(w http.ResponseWriter, r *http.Request) {
	c := Change(r.PathValue("change"))
	switch c {
	case Retry, Hold, Release, Delete:
	default:
		s.reply(w, nil, fmt.Errorf("%q is %w", c, ErrNotFound))
		return
	}
	var sel Selection
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&sel); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n, err := s.queue.Change(r.Context(), c, sel)
	s.reply(w, map[string]int{"changed": n}, err)
}

func (s *Server) submit(w http.ResponseWriter, r *http.Request) {
	from, err := mail.ParsePath(r.URL.Query().Get("from"))
	if err != nil {
		http.Error(w, "from: "+err.Error(), http.StatusBadRequest)
		return
	}
	var to []mail.Path
	for _, t := range r.URL.Query()["to"] {
		p, err := mail.ParsePath(t)
		if err != nil || p.IsZero() {
			http.Error(w, fmt.Sprintf("to: %q is not an address", t), http.StatusBadRequest)
			return
		}
		to = append(to, p)
	}
	if len(to) == 0 {
		http.Error(w, "to: name a recipient", http.StatusBadRequest)
		return
	}
	sub, err := s.backend.Submit(r.Context(), from, to, r.Body)
	s.reply(w, sub, err)
}

func (s *Server) story(w http.ResponseWriter, r *http.Request) {
	events := s.backend.Story(r.PathValue("id"))
	if events == nil {
		events = []trace.Event{}
	}
	s.reply(w, events, nil)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) { s.reply(w, s.backend.Status(), nil) }

func (s *Server) reply(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
}
