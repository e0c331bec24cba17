package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

const example = "../../config.example.toml"

func exampleText(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestExampleRuns: the example is valid as it stands.
func TestExampleRuns(t *testing.T) {
	c, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Listeners) != 2 || c.Listeners[0].Address != "127.0.0.1:2525" || c.Listeners[1].Address != "127.0.0.1:2587" {
		t.Errorf("listeners: %+v", c.Listeners)
	}
	if abs, _ := filepath.Abs("../../data"); c.DataDir != abs {
		t.Errorf("data_dir is %q", c.DataDir)
	}
	for i, s := range c.Limits.Networks {
		if s == (NetworkLimits{}) {
			t.Errorf("limits.networks.%s says nothing", i)
		}
	}
}

// commented is a line of the example that is a key or a table, commented out. Prose never
// has this form.
var commented = regexp.MustCompile(`^# ((\[\[?[a-z_.]+\]\]?)|([a-z0-9_]+) = (.*))$`)

// TestExampleUncommented: every commented line is valid too.
func TestExampleUncommented(t *testing.T) {
	var out []string
	for _, line := range strings.Split(exampleText(t), "\n") {
		m := commented.FindStringSubmatch(line)
		switch {
		case m == nil:
		// The one word and the table exclude each other.
		case m[1] == `on_failure = "tempfail"`:
			continue
		default:
			line = m[1]
		}
		out = append(out, line)
	}
	text := strings.Join(out, "\n")
	if _, err := Parse(example, []byte(text)); err != nil {
		t.Errorf("with all keys uncommented: %v", err)
	}
}

// key is one key of the configuration, by its path without indexes.
type key struct {
	path  string
	value string // default, as it is written in a file; "" if it depends or is none
}

// keys lists every key below a struct with its default.
func keys(path string, v reflect.Value) []key {
	if d, ok := v.Addr().Interface().(defaulter); ok {
		d.setDefaults(nil)
	}
	var out []key
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("toml")
		if name == "" {
			continue
		}
		p := joinKey(path, name)
		fv := v.Field(i)
		switch el := f.Type; {
		case el == reflect.TypeFor[OnFailure]():
			out = append(out, key{p, `"` + fv.Field(0).String() + `"`})
			out = append(out, keys(p, fv)...)
		case el == reflect.TypeFor[Settings]():
			out = append(out, key{p, ""})
		case el == reflect.TypeFor[mail.Domain](), el == reflect.TypeFor[mail.Path]():
			out = append(out, key{p, `""`})
		case el.Kind() == reflect.Struct:
			out = append(out, keys(p, fv)...)
		case el.Kind() == reflect.Slice && el.Elem().Kind() == reflect.Struct && el.Elem() != reflect.TypeFor[mail.Domain]() && el.Elem() != reflect.TypeFor[mail.Path]():
			out = append(out, keys(p, reflect.New(el.Elem()).Elem())...)
		case el.Kind() == reflect.Map && el.Elem().Kind() == reflect.Struct:
			out = append(out, keys(p+".office", reflect.New(el.Elem()).Elem())...)
		case el.Kind() == reflect.Map:
			out = append(out, key{p + ".office", ""})
		case el.Kind() == reflect.Slice:
			out = append(out, key{p, "[]"})
		case el.Kind() == reflect.Pointer:
			out = append(out, key{p, ""})
		case el.Kind() == reflect.String:
			out = append(out, key{p, fmt.Sprintf("%q", fv.String())})
		case el == reflect.TypeFor[Duration](), el == reflect.TypeFor[Size]():
			out = append(out, key{p, fmt.Sprintf("%q", fv.Interface())})
		default:
			out = append(out, key{p, fmt.Sprint(fv.Interface())})
		}
	}
	return out
}

// TestExampleIsComplete: the example mentions every key, and a key that is commented out
// shows its default.
func TestExampleIsComplete(t *testing.T) {
	type mention struct {
		value     string
		commented bool
	}
	mentioned := make(map[string][]mention)
	table := ""
	uncommentedKey := regexp.MustCompile(`^((\[\[?[a-z_.]+\]\]?)|([a-z0-9_]+) = (.*))$`)
	for _, line := range strings.Split(exampleText(t), "\n") {
		m, off := uncommentedKey.FindStringSubmatch(line), false
		if m == nil {
			m, off = commented.FindStringSubmatch(line), true
		}
		switch {
		case m == nil:
		case m[2] != "":
			table = strings.Trim(m[2], "[]")
			mentioned[table] = append(mentioned[table], mention{"", off})
		default:
			p := joinKey(table, m[3])
			mentioned[p] = append(mentioned[p], mention{m[4], off})
		}
	}
	all := keys("", reflect.ValueOf(Defaults()).Elem())
	if len(all) < 60 {
		t.Fatalf("only %d keys found", len(all))
	}
	for _, k := range all {
		ms := mentioned[k.path]
		if len(ms) == 0 {
			t.Errorf("%s is not mentioned", k.path)
			continue
		}
		shown := false
		for _, m := range ms {
			shown = shown || !m.commented || strings.HasSuffix(k.path, ".match") || k.value == "" || m.value == k.value || k.value == "[]" && m.value == `""`
		}
		if !shown {
			t.Errorf("%s is shown as %q, its default is %s", k.path, ms[0].value, k.value)
		}
	}
}

// TestEveryKeyHasADoc: each field has a comment whose last part is its default.
func TestEveryKeyHasADoc(t *testing.T) {
	n := 0
	for _, name := range []string{"config.go", "plugin.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		n += documented(t, f)
	}
	if n < 90 {
		t.Errorf("only %d fields found", n)
	}
}

// documented looks at the fields of a file and returns how many there are.
func documented(t *testing.T, f *ast.File) (n int) {
	t.Helper()
	ast.Inspect(f, func(node ast.Node) bool {
		field, ok := node.(*ast.Field)
		if !ok || field.Tag == nil {
			return true
		}
		n++
		lines := strings.Split(strings.TrimSpace(field.Doc.Text()), "\n")
		if len(lines) < 2 || !strings.HasPrefix(lines[len(lines)-1], "Default: ") {
			t.Errorf("the comment of %s does not end in its default", field.Names[0])
		}
		if !strings.HasPrefix(lines[0], field.Names[0].Name+" ") {
			t.Errorf("the comment of %s does not begin with its name", field.Names[0])
		}
		return true
	})
	return n
}
