package pluginhost

import "time"

// Status is what is known of a plugin, for listing.
type Status struct {
	Name     string
	Version  string
	Pid      int    // 0 while it is down
	State    string // "running", "down", "breaker open" or "disabled"
	Reason   string // why it is down
	Breaker  bool   // is open: it died again and again
	Restarts int
	Since    time.Time // start of the process, or of the last one
	Calls    int64     // through wrappers
	Failures int64     // of those, and calls of services without the right
	Owns     []string  // header fields that only it may write
	// Counters are what the plugin has counted through the host's service.
	Counters map[string]int64
}

// Status lists the plugins in configured order.
func (h *Host) Status() []Status {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var list []Status
	for _, name := range h.order {
		if s := h.slots[name].sup.Load(); s != nil {
			st := s.status()
			if h.slots[name].disabled.Load() {
				st.State, st.Reason = "disabled", errDisabled.Error()
			}
			st.Counters = h.counters.Of(name)
			list = append(list, st)
		}
	}
	return list
}

func (s *supervisor) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Name:     s.spec.Name,
		Version:  s.last.desc.Manifest.Version,
		State:    "down",
		Reason:   s.reason,
		Breaker:  s.open,
		Restarts: s.restarts,
		Since:    s.last.started,
		Calls:    s.calls.Load(),
		Failures: s.failed.Load(),
		Owns:     s.last.desc.Manifest.Owns,
	}
	if p := s.cur.Load(); p != nil {
		st.Pid, st.State, st.Reason = p.child.Pid(), "running", ""
	} else if s.open {
		st.State = "breaker open"
	}
	return st
}
