package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// PluginStatus is what is known of one plugin.
type PluginStatus struct {
	Name      string    `json:"name"`
	State     string    `json:"state"` // running, down, breaker open or disabled
	Reason    string    `json:"reason,omitempty"`
	Pid       int       `json:"pid"` // 0: no process
	Version   string    `json:"version"`
	Restarts  int       `json:"restarts"`
	Calls     int64     `json:"calls"`    // since it was configured or restarted
	Failures  int64     `json:"failures"` // of those
	Since     time.Time `json:"since"`    // start of its process, or of the last one
	OnFailure string    `json:"on_failure,omitempty"`
	Breaker   bool      `json:"breaker"` // open: it died again and again
	// Owns are the header fields that only it may write, as in a manifest.
	Owns []string `json:"owns,omitempty"`
	// The counts are of the time since the gateway's start, and messages are versions of
	// messages, each time one was asked about.
	Verdicts  Verdicts `json:"verdicts"`   // on messages, those that were not to go on
	NoVerdict Choices  `json:"no_verdict"` // on messages: its on_failure decided
	NoAnswer  Choices  `json:"no_answer"`  // the same of the questions to a gate
	// Counters are what the plugin has counted itself, since the gateway's start.
	Counters map[string]int64 `json:"counters,omitempty"`
}

// Verdicts is how often a plugin stopped a message, for some of its recipients or for all.
type Verdicts struct {
	Rejected    int64 `json:"rejected"`
	Deferred    int64 `json:"deferred"`
	Discarded   int64 `json:"discarded"`
	Quarantined int64 `json:"quarantined"`
}

// Choices is how often a plugin gave no verdict, or said that it could not look, by what came
// of it.
type Choices struct {
	Unscanned int64 `json:"unscanned"` // went on, marked as unscanned
	Deferred  int64 `json:"deferred"`
	Rejected  int64 `json:"rejected"`
	Parked    int64 `json:"parked"` // of questions: left to the plugin, which will see the message
}

// PluginChange is what can be done to a plugin.
type PluginChange string

// The changes.
const (
	RestartPlugin PluginChange = "restart" // another process takes over
	DisablePlugin PluginChange = "disable" // counts as down until it is enabled
	EnablePlugin  PluginChange = "enable"
)

// Plugins are the gateway's plugins, as an admin steers them.
type Plugins interface {
	Plugins() []PluginStatus
	// SteerPlugin returns when the change is done, or what prevents it; then nothing has
	// changed.
	SteerPlugin(ctx context.Context, name string, c PluginChange) error
}

// routePlugins adds the routes about plugins.
func (s *Server) routePlugins(mux *http.ServeMux, p Plugins) {
	mux.HandleFunc("GET /api/v1/plugins", func(w http.ResponseWriter, _ *http.Request) {
		list := p.Plugins()
		if list == nil {
			list = []PluginStatus{}
		}
		s.reply(w, list, nil)
	})
	mux.HandleFunc("POST /api/v1/plugins/{name}/{change}", func(w http.ResponseWriter, r *http.Request) {
		c := PluginChange(r.PathValue("change"))
		switch c {
		case RestartPlugin, DisablePlugin, EnablePlugin:
		default:
			http.Error(w, fmt.Sprintf("%q is no change of a plugin", c), http.StatusBadRequest)
			return
		}
		s.reply(w, struct{}{}, p.SteerPlugin(r.Context(), r.PathValue("name"), c))
	})
}

// Plugins lists the plugins.
func (c *Client) Plugins(ctx context.Context) (list []PluginStatus, err error) {
	err = c.get(ctx, "/plugins", &list)
	return list, err
}

// SteerPlugin changes a plugin.
func (c *Client) SteerPlugin(ctx context.Context, name string, change PluginChange) error {
	var none struct{}
	return c.call(ctx, "POST", "/plugins/"+url.PathEscape(name)+"/"+string(change), nil, &none)
}
