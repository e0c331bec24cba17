package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/postern-mail/postern/sdk/mail"
)

const day = 24 * time.Hour

// Duration is a time span, written like "90s", "4h", "1h30m" or "5d".
type Duration time.Duration

// ParseDuration parses a Duration. It is never negative.
func ParseDuration(s string) (Duration, error) {
	bad := fmt.Errorf(`%q is not a duration; write it like "30s", "4h" or "5d"`, s)
	days, rest, found := strings.Cut(s, "d")
	if !found {
		days, rest = "", s
	}
	var total time.Duration
	if found {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, bad
		}
		total = time.Duration(n) * day
	}
	if rest != "" || !found {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || strings.HasPrefix(rest, "-") || total > math.MaxInt64-d {
			return 0, bad
		}
		total += d
	}
	return Duration(total), nil
}

// UnmarshalText parses a Duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err == nil {
		*d = v
	}
	return err
}

// String writes d as ParseDuration reads it, in its largest units.
func (d Duration) String() string {
	t := time.Duration(d)
	var b strings.Builder
	if t >= day && t%time.Minute == 0 {
		fmt.Fprintf(&b, "%dd", t/day)
		if t %= day; t == 0 {
			return b.String()
		}
	}
	s := t.String() // 4h0m0s, 5m0s, 0s
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return b.String() + s
}

// Size is a number of bytes, written like "25MiB", "10kB" or 1048576.
type Size int64

// sizeUnits, longest suffix first.
var sizeUnits = []struct {
	suffix string
	bytes  uint64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// ParseSize parses a Size. It is never negative.
func ParseSize(s string) (Size, error) {
	bad := fmt.Errorf(`%q is not a size; write it like "25MiB" or "500kB"`, s)
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(digits, " "), 10, 63)
		if err != nil || n > math.MaxInt64/u.bytes {
			return 0, bad
		}
		return Size(n * u.bytes), nil
	}
	return 0, bad
}

// UnmarshalText parses a Size.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	if err == nil {
		*s = v
	}
	return err
}

// String writes s in the largest binary unit that shows it exactly.
func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; s > 0 && uint64(s)%u.bytes == 0 {
			return strconv.FormatUint(uint64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Strings is a list that may be written as one string; an empty string is an empty list.
type Strings []string

// UnmarshalText takes the one string.
func (s *Strings) UnmarshalText(b []byte) error {
	*s = nil
	if len(b) > 0 {
		*s = Strings{string(b)}
	}
	return nil
}

// Origins are origins of mail, by their names.
type Origins []mail.Origin

// fromTOML takes an array of names.
func (o *Origins) fromTOML(value any) error {
	names, ok := value.([]any)
	if !ok {
		return errors.New(`must be an array of strings, like ["incoming"]`)
	}
	*o = nil
	for _, n := range names {
		name, _ := n.(string)
		origin, ok := mail.ParseOrigin(name)
		if !ok {
			return fmt.Errorf("%#v is not an origin; use incoming, submitted, internal, redirected, copy or fetched", n)
		}
		*o = append(*o, origin)
	}
	return nil
}

// Settings are a plugin's own settings.
type Settings struct {
	TOML []byte // the table, written anew
	Line int    // of the table in the file; 0: there is none

	secret string // the key of a secret in it, if there is one
}

// secretWords are names of keys whose values must not be seen by everybody.
var secretWords = []string{"password", "secret", "token", "api_key"}

// findSecret returns the path of a key in value that holds a secret, or "".
func findSecret(value any) string {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if s, ok := v[key].(string); ok && s != "" && slices.Contains(secretWords, strings.ToLower(key)) {
				return key
			}
			if found := findSecret(v[key]); found != "" {
				return key + "." + found
			}
		}
	case []map[string]any:
		for _, table := range v {
			if found := findSecret(table); found != "" {
				return found
			}
		}
	case []any:
		for _, item := range v {
			if found := findSecret(item); found != "" {
				return found
			}
		}
	}
	return ""
}

// fromTOML takes any table.
func (s *Settings) fromTOML(value any) error {
	table, ok := value.(map[string]any)
	if !ok {
		return errors.New("must be a table")
	}
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(table); err != nil {
		return fmt.Errorf("cannot be handed to the plugin: %w", err)
	}
	s.TOML, s.secret = b.Bytes(), findSecret(table)
	return nil
}

// UnmarshalText takes the one word.
func (o *OnFailure) UnmarshalText(b []byte) error {
	*o = OnFailure{Default: string(b)}
	return nil
}
