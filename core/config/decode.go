package config

import (
	"encoding"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// fromTOML is a value with a form of its own in the file.
type fromTOML interface{ fromTOML(value any) error }

// later are keys that are planned: they get a clear refusal instead of "unknown key".
var later = []string{"plugin.mode"}

// topLevel are the keys outside any table: below a table's header TOML takes them for the table's.
var topLevel = []string{"hostname", "data_dir", "postmaster", "unsafe_spool"}

// decoder moves what the TOML library parsed into the structs and collects every problem
// on the way. (The library's own decoding stops at the first wrong type and has no lines.)
type decoder struct {
	file     string
	lines    map[string]int
	problems Problems
}

func (d *decoder) problem(key, format string, args ...any) {
	if len(d.problems) >= maxProblems {
		return
	}
	d.problems = append(d.problems, Problem{d.file, lineOf(d.lines, key), key, fmt.Sprintf(format, args...)})
}

// lineOf is the line of a key, or of the nearest table around it.
func lineOf(lines map[string]int, key string) int {
	for key != "" {
		if n, ok := lines[key]; ok {
			return n
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
	return 0
}

// table fills a struct.
func (d *decoder) table(path string, in map[string]any, out reflect.Value) {
	fields := make(map[string]reflect.Value)
	for i := range out.NumField() {
		if name := out.Type().Field(i).Tag.Get("toml"); name != "" {
			fields[name] = out.Field(i)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(in)) {
		if f, ok := fields[key]; ok {
			d.value(joinKey(path, key), in[key], f)
		} else {
			d.unknown(path, key, fields)
		}
	}
}

func (d *decoder) unknown(path, key string, fields map[string]reflect.Value) {
	full := joinKey(path, key)
	if len(d.problems) >= maxProblems {
		return
	}
	if slices.Contains(later, withoutIndexes(full)) {
		d.problem(full, "this key is not available in this version; remove it")
		return
	}
	text := fmt.Sprintf("unknown key %q", key)
	if path != "" {
		text += " in [" + withoutIndexes(path) + "]"
	}
	best, bestDistance := "", 3
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if n := distance(key, name); n < bestDistance && n < len(name) {
			best, bestDistance = name, n
		}
	}
	switch _, ok := fields["password_file"]; {
	case path != "" && !strings.Contains(path, ".") && slices.Contains(topLevel, key):
		text += "; it belongs at the top of the file, before the first [section]"
	case key == "password" && ok:
		text += "; passwords are not kept in this file: use password_file or password_env"
	case withoutIndexes(path) == "plugin" && best == "":
		text += "; the settings of the plugin itself belong below [plugin.settings]"
	case best != "":
		text += fmt.Sprintf("; did you mean %q?", best)
	}
	d.problems = append(d.problems, Problem{d.file, lineOf(d.lines, full), "", text})
}

// value sets out from a value of the file.
func (d *decoder) value(path string, in any, out reflect.Value) {
	if out.Kind() == reflect.Pointer {
		out.Set(reflect.New(out.Type().Elem()))
		d.value(path, in, out.Elem())
		return
	}
	if v, ok := out.Addr().Interface().(fromTOML); ok {
		if err := v.fromTOML(in); err != nil {
			d.problem(path, "%v", err)
		} else if s, ok := v.(*Settings); ok {
			s.Line = lineOf(d.lines, path)
		}
		return
	}
	if s, ok := in.(string); ok {
		if v, ok := out.Addr().Interface().(encoding.TextUnmarshaler); ok {
			if err := v.UnmarshalText([]byte(s)); err != nil {
				d.problem(path, "%v", err)
			}
			return
		}
	}
	switch out.Kind() {
	case reflect.Struct:
		if table, ok := in.(map[string]any); ok {
			d.table(path, table, out)
			return
		}
	case reflect.Slice:
		if d.slice(path, in, out) {
			return
		}
	case reflect.Map:
		if table, ok := in.(map[string]any); ok {
			d.mapping(path, table, out)
			return
		}
	default:
		if d.scalar(in, out) {
			return
		}
	}
	d.problem(path, "must be %s, not %s", describe(out.Type()), describeValue(in))
}

// scalar sets a string, boolean or integer; false if the type is wrong.
func (d *decoder) scalar(in any, out reflect.Value) bool {
	switch v := in.(type) {
	case string:
		if out.Kind() == reflect.String {
			out.SetString(v)
			return true
		}
	case bool:
		if out.Kind() == reflect.Bool {
			out.SetBool(v)
			return true
		}
	case int64:
		if out.CanInt() && out.Type() != reflect.TypeFor[Duration]() && v >= 0 && (out.Kind() != reflect.Int || v <= math.MaxInt32) {
			out.SetInt(v)
			return true
		}
	}
	return false
}

// slice sets a list of values or of tables; false if the type is wrong.
func (d *decoder) slice(path string, in any, out reflect.Value) bool {
	var items []any
	switch v := in.(type) {
	case []any:
		items = v
	case []map[string]any:
		for _, t := range v {
			items = append(items, t)
		}
	default:
		return false
	}
	list := reflect.MakeSlice(out.Type(), len(items), len(items))
	for i, item := range items {
		el := list.Index(i)
		if def, ok := el.Addr().Interface().(defaulter); ok {
			table, _ := item.(map[string]any)
			def.setDefaults(table)
		}
		d.value(indexKey(path, i), item, el)
	}
	out.Set(list)
	return true
}

func (d *decoder) mapping(path string, in map[string]any, out reflect.Value) {
	m := reflect.MakeMap(out.Type())
	for _, key := range slices.Sorted(maps.Keys(in)) {
		el := reflect.New(out.Type().Elem()).Elem()
		d.value(joinKey(path, key), in[key], el)
		m.SetMapIndex(reflect.ValueOf(key), el)
	}
	out.Set(m)
}

// describe names a type as people write it.
func describe(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return `a duration in quotes, like "30s"`
	case t == reflect.TypeFor[Size]():
		return `a size, like "25MiB"`
	case t == reflect.TypeFor[Strings]():
		return "a string or an array of strings"
	case t == reflect.TypeFor[OnFailure]():
		return "a string or a table"
	case t == reflect.TypeFor[mail.Domain](), t == reflect.TypeFor[mail.Path]():
		return "a string"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number from 0 to 2147483647"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct && t.Elem() != reflect.TypeFor[mail.Domain]() && t.Elem() != reflect.TypeFor[mail.Path]() {
			return "an array of tables, written with [[ ]]"
		}
		return "an array"
	case reflect.Struct, reflect.Map:
		return "a table"
	}
	return "a string"
}

func describeValue(v any) string {
	switch v := v.(type) {
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return "a fraction"
	case []any, []map[string]any:
		return "an array"
	case map[string]any:
		return "a table"
	}
	return "a date"
}

// withoutIndexes turns "plugin[2].user" into "plugin.user".
func withoutIndexes(path string) string {
	var b strings.Builder
	skip := false
	for _, r := range path {
		switch {
		case r == '[':
			skip = true
		case r == ']':
			skip = false
		case !skip:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// distance is the number of edits between two words (Levenshtein), at most 3.
func distance(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return min(row[len(b)], 3)
}
