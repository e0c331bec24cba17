package setting

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
)

func TestList(t *testing.T) {
	for text, want := range map[string][]string{
		`l = "a"`: {"a"}, `l = ["a", "b"]`: {"a", "b"}, `l = []`: {}, ``: {"default"},
		`l = 1`: nil, `l = ["a", 1]`: nil, `l = {a = "b"}`: nil,
	} {
		s := struct{ L List }{List{"default"}}
		err := sdk.Config{Settings: []byte(text)}.Decode(&s)
		if want == nil {
			if err == nil || !strings.Contains(err.Error(), "neither a string nor an array of strings") {
				t.Errorf("%s: %q, %v", text, s.L, err)
			}
		} else if err != nil || !slices.Equal(s.L, want) {
			t.Errorf("%s: %q, %v", text, s.L, err)
		}
	}
}

func TestFile(t *testing.T) {
	for name, want := range map[string]string{"": "/data", "a/b": "/data/a/b", "/a": "/a"} {
		if got := File("/data", name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	for i, tt := range []struct {
		content string
		mode    os.FileMode
		want    string
		fault   string
	}{
		{"secret\n", 0o600, "secret", ""},
		{" sec ret \r\n", 0o640, " sec ret ", ""},
		{"secret", 0o604, "", "run: chmod 600 "},
		{"secret", 0o601, "", "run: chmod 600 "},
		{"", 0o600, "", "one line with a password"},
		{"\n", 0o600, "", "one line with a password"},
		{"a\nb\n", 0o600, "", "one line with a password"},
		{"a\x00b", 0o600, "", "one line with a password"},
		{strings.Repeat("x", maxSecret), 0o600, strings.Repeat("x", maxSecret), ""},
		{strings.Repeat("x", maxSecret+1), 0o600, "", "more than 1024 bytes"},
	} {
		file := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(file, []byte(tt.content), tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, tt.mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		got, err := Secret(file)
		if got != tt.want || (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%q %o: %q, %v", tt.content, tt.mode, got, err)
		}
		if err != nil && tt.content != "" && strings.Contains(err.Error(), strings.TrimSpace(tt.content)+"\"") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	for _, file := range []string{"gone", ""} { // the last is the folder
		if _, err := Secret(filepath.Join(dir, file)); err == nil {
			t.Errorf("%q is not a file", file)
		}
	}
}
