package spam

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/setting"
)

// Settings of the plugin.
type Settings struct {
	// Engine is "rspamd" or "spamassassin". Default: "rspamd".
	Engine string `toml:"engine"`
	// URL of rspamd's normal worker; one, or an array tried in order. Default:
	// "http://127.0.0.1:11333".
	URL setting.List `toml:"url"`
	// PasswordFile has the password for rspamd, if it wants one; relative to the gateway's
	// data directory. Default: "".
	PasswordFile string `toml:"password_file"`
	// SettingsID selects rspamd's settings of that id. Default: "".
	SettingsID string `toml:"settings_id"`
	// Address of spamd, "host:port" or "unix:/path"; one, or an array tried in order.
	// Default: "127.0.0.1:783".
	Address setting.List `toml:"address"`
	// User whose preferences spamd uses. Default: "".
	User string `toml:"user"`

	// Tag, Quarantine and Reject say when that happens: when the engine asks for it
	// ("engine"), also from a score on (a number), or never ("off"). Default: "engine".
	Tag        threshold `toml:"tag"`
	Quarantine threshold `toml:"quarantine"`
	Reject     threshold `toml:"reject"`
	// Domains has other thresholds for recipients of a domain. Default: none.
	Domains map[string]Thresholds `toml:"domains"`

	// MaxSize is the size up to which messages are sent whole. Default: "4MiB".
	MaxSize size `toml:"max_size"`
	// Oversize is what becomes of larger ones: "head" sends their header, structure and the
	// beginning of their texts, "unscanned" leaves it to on_failure. Default: "head".
	Oversize string `toml:"oversize"`
	// Headers adds X-Spam-Score, X-Spam-Level and X-Spam-Status. Default: true.
	Headers bool `toml:"headers"`
	// GreylistDelay is how long a sender has to wait whose mail the engine wants
	// greylisted; "0s": such mail passes. Default: "5m".
	GreylistDelay time.Duration `toml:"greylist_delay"`
}

// Thresholds are those of one domain; where nothing is said those of all are.
type Thresholds struct {
	Tag        threshold `toml:"tag"`
	Quarantine threshold `toml:"quarantine"`
	Reject     threshold `toml:"reject"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{
		Engine: "rspamd", URL: setting.List{"http://127.0.0.1:11333"}, Address: setting.List{"127.0.0.1:783"},
		MaxSize: 4 << 20, Oversize: "head", Headers: true, GreylistDelay: 5 * time.Minute,
	}
}

// threshold is a score besides what the engine asks for, "off", or the engine alone.
type threshold struct {
	said  bool
	off   bool
	own   bool // score counts, too
	score float64
}

// UnmarshalTOML implements [toml.Unmarshaler].
func (t *threshold) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		*t = threshold{said: true, own: true, score: float64(v)}
	case float64:
		*t = threshold{said: true, own: true, score: v}
	case string:
		if v != "off" && v != "engine" {
			return fmt.Errorf(`%q is neither a score nor "off" nor "engine"`, v)
		}
		*t = threshold{said: true, off: v == "off"}
	default:
		return errors.New(`it is neither a score nor "off" nor "engine"`)
	}
	if t.score != t.score || t.score < -1e6 || t.score > 1e6 {
		return errors.New("it is not a score")
	}
	return nil
}

func (t threshold) or(all threshold) threshold {
	if t.said {
		return t
	}
	return all
}

// size is a number of bytes.
type size int64

// minSize is the least that max_size may be: a header has to fit.
const minSize = 64 << 10

// UnmarshalTOML implements [toml.Unmarshaler].
func (n *size) UnmarshalTOML(v any) error {
	text, ok := v.(string)
	if i, isInt := v.(int64); isInt {
		text, ok = strconv.FormatInt(i, 10), true
	}
	unit := int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20} {
		if number, found := strings.CutSuffix(text, suffix); found {
			text, unit = number, u
		}
	}
	i, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if !ok || err != nil || i < 0 || i > 1<<40/unit {
		return errors.New(`it is not a size like "4MiB"`)
	}
	*n = size(i * unit)
	return nil
}

func checkEach(key string, all setting.List, check func(string) error) (faults []error) {
	if len(all) == 0 {
		faults = append(faults, fmt.Errorf("settings: %s is empty", key))
	}
	for _, a := range all {
		if err := check(a); err != nil {
			faults = append(faults, fmt.Errorf("settings: %s: %w", key, err))
		}
	}
	return faults
}

// checkURL accepts the address of an rspamd. Passwords have a file of their own: a URL is in
// the log.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("it is not a URL")
	case u.User != nil:
		return errors.New("there is a password in it; put it into password_file")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return fmt.Errorf("%q is not of the form http://host:port", s)
	}
	return nil
}

func plainWord(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
