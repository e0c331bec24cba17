package config

import (
	"fmt"
	"strings"
	"testing"
)

const plain = `hostname = "mx.example.org"
data_dir = "data"
[[listener]]
address = "127.0.0.1:0"
role = "mx"
[[plugin]]
name = "x"
`

func TestPluginConfinement(t *testing.T) {
	sum := strings.Repeat("0123456789abcdef", 4)
	for _, tt := range []struct{ keys, want string }{
		{`command = "/bin/true"` + "\nsha256 = \"" + sum + `"`, ""},
		{`command = "/bin/true"` + "\nsha256 = \"" + strings.ToUpper(sum) + `"`, ""},
		{`command = "/bin/true"` + "\nsha256 = \"" + sum[1:] + `"`, "plugin[0].sha256: is not a SHA-256 in hex; see sha256sum /bin/true"},
		{`sha256 = "` + sum + `"`, "for a plugin with a command"},
		{`user = "nobody"`, ""},
		{`user = "4711:4712"`, ""},
		{`user = "no-such-user"`, `there is no user "no-such-user"`},
		{`user = "nobody:no-such-group"`, `there is no group "no-such-group"`},
		{`user = "root"`, "would confine nothing"},
		{`user = "0"`, "would confine nothing"},
		{`user = "-1"`, "there is no user"},
		{`memory = "256MiB"`, ""},
		{`memory = "16MiB"`, ""},
		{`memory = "0B"`, ""},
		{`memory = 16777215`, "at least 16MiB"},
		{`processes = 0`, ""},
		{`processes = 16`, ""},
		{`processes = 15`, "at least 16"},
		{`processes = -1`, "from 0"},
		{`files = {}`, ""},
		{`files = {read = "/usr/share/dict", write = ["data/x"]}`, ""},
		{`files = {read = ["/"]}`, "plugin[0].files.read[0]: is everything"},
		{`files = {write = ["/srv", "/.."]}`, "plugin[0].files.write[1]: is everything"},
		{`files = {write = ["/srv", ""]}`, "plugin[0].files.write[1]: is empty"},
		{`files = {reads = []}`, `did you mean "read"?`},
		{`delay = "5m"`, `belong below [plugin.settings]`},
		{`files = "/srv"`, "must be a table, not a string"},
	} {
		_, err := Parse("postern.toml", []byte(plain+tt.keys+"\n"))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.keys, err)
		case tt.want != "" && !strings.Contains(fmt.Sprint(err), tt.want):
			t.Errorf("%s: %v", tt.keys, err)
		case tt.want != "" && !strings.Contains(err.Error(), "postern.toml:"+fmt.Sprint(strings.Count(plain+tt.keys, "\n")+1)):
			t.Errorf("%s: the line is not named: %v", tt.keys, err)
		}
	}
}

// What is not said is no restriction, an empty table is; relative paths are from the file's
// place.
func TestPluginFiles(t *testing.T) {
	for _, tt := range []struct{ keys, want string }{
		{"", "<nil>"},
		{"files = {}", "&{[] []}"},
		{`files = {read = ["a/b", "/c/d/.."]}`, "&{[/etc/a/b /c/d/..] []}"},
		{`files = {write = "data"}`, "&{[] [/etc/data]}"},
	} {
		c, err := Parse("/etc/postern.toml", []byte(plain+tt.keys+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(c.Plugins[0].Files); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.keys, got, tt.want)
		}
	}
}
