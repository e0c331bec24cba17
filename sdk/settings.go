package sdk

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// readable gives settings the durations that package time knows: "5d" is written in hours, as
// the rest of the configuration may write days. A number without a unit, which TOML would take
// for nanoseconds, is an error.
func readable(settings []byte, v any) ([]byte, error) {
	var table map[string]any
	if v == nil || toml.Unmarshal(settings, &table) != nil {
		return settings, nil // Decode says what is wrong
	}
	changed, err := durations(table, reflect.TypeOf(v), "")
	if err != nil || !changed {
		return settings, err
	}
	var b bytes.Buffer
	err = toml.NewEncoder(&b).Encode(table)
	return b.Bytes(), err
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	wholeDays    = regexp.MustCompile(`^[0-9]{1,6}d$`)
)

// durations goes through a table with the struct that it is for.
func durations(table map[string]any, t reflect.Type, path string) (changed bool, err error) {
	for key, value := range table {
		field, ok := fieldType(t, key)
		if !ok {
			continue
		}
		field = pointedTo(field)
		name := path + key
		switch value := value.(type) {
		case map[string]any:
			c, err := durations(value, field, name+".")
			if changed = changed || c; err != nil {
				return false, err
			}
		case []map[string]any:
			for _, one := range value {
				if field.Kind() != reflect.Slice {
					break
				}
				c, err := durations(one, field.Elem(), name+".")
				if changed = changed || c; err != nil {
					return false, err
				}
			}
		case []any:
			for i, one := range value {
				if s, ok := one.(string); ok && field.Kind() == reflect.Slice && pointedTo(field.Elem()) == durationType && wholeDays.MatchString(s) {
					value[i], changed = hours(s), true
				}
			}
		case string:
			if field == durationType && wholeDays.MatchString(value) {
				table[key], changed = hours(value), true
			}
		case int64, float64, bool:
			if field == durationType {
				return false, fmt.Errorf("settings: key %q: must be a duration in quotes, like \"30s\", not %v", name, value)
			}
		}
	}
	return changed, nil
}

// hours writes days as hours.
func hours(days string) string {
	n, _ := strconv.Atoi(strings.TrimSuffix(days, "d"))
	return fmt.Sprintf("%dh", n*24)
}

func pointedTo(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// fieldType is the type of what a key of a table is decoded into.
func fieldType(t reflect.Type, key string) (reflect.Type, bool) {
	switch t = pointedTo(t); t.Kind() {
	case reflect.Map:
		return t.Elem(), true
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if keyOf(f) == key {
				return f.Type, true
			}
			if f.Anonymous && f.Tag.Get("toml") == "" && pointedTo(f.Type).Kind() == reflect.Struct {
				if found, ok := fieldType(f.Type, key); ok {
					return found, true
				}
			}
		}
	}
	return nil, false
}

func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	if name == "" {
		name = f.Name
	}
	return name
}

// meant is the key that an unknown one is nearly, or "".
func meant(unknown toml.Key, v any) string {
	t := reflect.TypeOf(v)
	for _, key := range unknown[:len(unknown)-1] {
		var ok bool
		if t, ok = fieldType(t, key); !ok {
			return ""
		}
		if t.Kind() == reflect.Slice { // of tables
			t = t.Elem()
		}
	}
	if t = pointedTo(t); t.Kind() != reflect.Struct {
		return ""
	}
	last := unknown[len(unknown)-1]
	for i := range t.NumField() {
		if name := keyOf(t.Field(i)); t.Field(i).IsExported() && name != "-" && near(last, name) {
			return name
		}
	}
	return ""
}

// near reports whether two words are the same but for a letter that is missing, added, another
// one, or changed places with the next.
func near(a, b string) bool {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	a, b = a[i:], b[i:]
	switch {
	case len(a) == len(b)+1:
		return a[1:] == b
	case len(a)+1 == len(b):
		return a == b[1:]
	case len(a) != len(b) || a == "":
		return false
	}
	return a[1:] == b[1:] || len(a) > 1 && a[0] == b[1] && a[1] == b[0] && a[2:] == b[2:]
}

var (
	mismatch    = regexp.MustCompile(`\(last key ("[^"]*")\): incompatible types: TOML value has type (\S+); destination has type (\S+)$`)
	plainValues = map[string]string{"bool": "true or false", "int64": "a whole number", "float64": "a number", "[]any": "an array", "[]map[string]any": "an array of tables", "map[string]any": "a table"}
	plainTypes  = map[string]string{"slice": "an array, in [ ]", "string": "a string, in quotes", "bool": "true or false", "boolean": "true or false", "integer": "a whole number", "float": "a number", "map": "a table", "struct": "a table"}
)

// plain is an error of the decoder in words of TOML and not of Go, where it is about a value.
// It leaves the line out: the admin's file has more lines than the settings.
func plain(err error, settings []byte) error {
	var pe toml.ParseError
	switch {
	case !errors.As(err, &pe):
		text := strings.TrimPrefix(err.Error(), "toml: ")
		if m := mismatch.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("key %s: must be %s, not %s", m[1], cmp.Or(plainTypes[m[3]], m[3]), cmp.Or(plainValues[m[2]], "a "+m[2]))
		}
		return fmt.Errorf("settings: %s", text)
	case strings.HasPrefix(pe.Message, "invalid duration"):
		return fmt.Errorf("settings: key %q: %s; write it like %q, %q or %q", pe.LastKey, pe.Message, "30s", "4h", "5d")
	case pe.LastKey != "" && isTOML(settings): // so a type of the plugin has said so
		return fmt.Errorf("settings: key %q: %s", pe.LastKey, pe.Message)
	case pe.LastKey != "":
		return fmt.Errorf("settings: line %d, key %q: %s", pe.Position.Line, pe.LastKey, pe.Message)
	}
	return fmt.Errorf("settings: line %d: %s", pe.Position.Line, pe.Message)
}

func isTOML(settings []byte) bool {
	var table map[string]any
	return toml.Unmarshal(settings, &table) == nil
}
